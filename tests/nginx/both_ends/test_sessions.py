from tests.nginx.test_sessions import *  # noqa: F403 - with the gateway of this directory
