from tests.nginx.test_weights import *  # noqa: F403 - with the gateway of this directory
