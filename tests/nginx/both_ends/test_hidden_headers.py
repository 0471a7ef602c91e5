from tests.nginx.test_hidden_headers import *  # noqa: F403 - with the gateway of this directory
