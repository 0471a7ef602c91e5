from tests.nginx.test_mirrors import *  # noqa: F403 - with the gateway of this directory
