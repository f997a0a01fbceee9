"""A project before its migration: it lists the logged-in users, and gets the organisation of one of them from Zoho."""

import sys

from custom_store_sqlite import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

store = CustomStoreSQLite()
for token in store.get_tokens():
    user = token.get_user_signature()
    print(token.get_id(), None if user is None else user.get_name())

token = OAuthToken(user_signature=UserSignature(sys.argv[1]))
Initializer.initialize(environment=USDataCenter.PRODUCTION(), token=token, store=store)
[organisation] = OrgOperations().get_organization().get_object().get_org()
print(f"{sys.argv[1]}: row {token.get_id()}, organisation {organisation.get_zgid()}")
