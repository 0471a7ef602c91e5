from tests.nginx.test_priorities import *  # noqa: F403 - with the gateway of this directory
