from tests.nginx.test_policies import *  # noqa: F403 - with the gateway of this directory
