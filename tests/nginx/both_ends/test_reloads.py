from tests.nginx.test_reloads import *  # noqa: F403 - with the gateway of this directory
