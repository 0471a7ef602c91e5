from tests.nginx.test_apis import *  # noqa: F403 - with the gateway of this directory
