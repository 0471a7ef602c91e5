from tests.nginx.test_explain import *  # noqa: F403 - with the gateway of this directory
