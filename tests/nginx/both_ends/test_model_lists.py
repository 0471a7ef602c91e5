from tests.nginx.test_model_lists import *  # noqa: F403 - with the gateway of this directory
