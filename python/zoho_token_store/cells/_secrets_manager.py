"""A cell that is a secret of AWS Secrets Manager."""

from __future__ import annotations

import uuid
from typing import Any

from ._cell import DocumentTooLarge

_LIMIT = 65_536
_CURRENT, _CANDIDATE = "AWSCURRENT", "ZOHOCANDIDATE"


class SecretsManagerCell:
    """A document in a secret, with a client of boto3: `boto3.client("secretsmanager")`.

    A secret has at most 64 KiB, which is some 100 users. AWS advises against more than one change in ten minutes over a
    longer time, because it keeps old versions for a day. So this place is for few users: a refresh is two changes.

    Example:
        >>> cell = SecretsManagerCell(boto3.client("secretsmanager"), "zoho-tokens")
        >>> cell.load()
        (None, None)
    """

    def __init__(self, client: Any, secret_id: str) -> None:
        """Name the secret. It is made if it is missing and the client may make it."""
        self.client, self.secret_id = client, secret_id

    def load(self) -> tuple[bytes | None, str | None]:
        """Read the current version of the secret."""
        try:
            answer = self.client.get_secret_value(SecretId=self.secret_id, VersionStage=_CURRENT)
        except self.client.exceptions.ResourceNotFoundException:
            return None, None
        if "SecretString" not in answer:
            raise ValueError(f"the secret {self.secret_id} holds something else: it has no SecretString")
        return answer["SecretString"].encode(), answer["VersionId"]

    def swap(self, document: bytes, version: str | None) -> bool:
        """Add a version, and move the label of the current one to it. AWS refuses if another version has the label."""
        if len(document) > _LIMIT:
            raise DocumentTooLarge(f"a secret has at most {_LIMIT} bytes")
        new = {"SecretString": document.decode("ascii"), "ClientRequestToken": str(uuid.uuid4())}
        errors = self.client.exceptions
        try:
            if version is None:
                self.client.create_secret(Name=self.secret_id, **new)
                return True
        except errors.ResourceExistsException:
            if self.load()[0] is not None:
                return False
        added = self.client.put_secret_value(SecretId=self.secret_id, VersionStages=[_CANDIDATE], **new)
        if version is None and self.load()[1] == added["VersionId"]:
            return True  # the first version of a secret is the current one at once
        move = {"RemoveFromVersionId": version} if version else {}
        try:
            self.client.update_secret_version_stage(
                SecretId=self.secret_id, VersionStage=_CURRENT, MoveToVersionId=added["VersionId"], **move
            )
        except errors.InvalidParameterException:
            if self.load()[1] == version:
                raise
            return False
        return True
