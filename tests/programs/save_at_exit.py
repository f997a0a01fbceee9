"""A program that saves in two `atexit` functions: one runs before its store is closed, the other one after."""

import atexit
import sys


def save(user, number):
    from support import login
    from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

    Initializer.store.save_token(login(user, number))


def main(path):
    # `atexit` runs the last function first. So this one runs after the function that the package registers at import.
    atexit.register(save, "last@example.com", 3)
    from test_files import keep_a_store_to_the_end

    keep_a_store_to_the_end(path)
    atexit.register(save, "bob@example.com", 2)


main(sys.argv[1])
