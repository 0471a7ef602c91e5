from tests.nginx.test_models_of_pools import *  # noqa: F403 - with the gateway of this directory
