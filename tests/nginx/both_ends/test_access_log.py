from tests.nginx.test_access_log import *  # noqa: F403 - with the gateway of this directory
