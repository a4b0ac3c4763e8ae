"""The official client's logins, without those that need more packages: see LEFT_OUT."""

from kubernetes.config import kube_config as kube_config
from kubernetes.config.config_exception import ConfigException as ConfigException

LEFT_OUT = ("auth-provider",)
