from tests.nginx.test_picked import *  # noqa: F403 - with the gateway of this directory
