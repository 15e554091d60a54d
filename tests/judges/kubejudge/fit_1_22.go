// From 1.22 on: no feature gates of logging, and the scheduler's configuration is a beta.
package main

import (
	"errors"

	encryption "k8s.io/apiserver/pkg/apis/config/v1"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	cliflag "k8s.io/component-base/cli/flag"
	scheduler "k8s.io/kube-scheduler/config/v1beta2"
	kcmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubeletvalidation "k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
)

func moreKinds() map[string]interface{} {
	return map[string]interface{}{
		"KubeSchedulerConfiguration": scheduler.KubeSchedulerConfiguration{},
		"EncryptionConfiguration":    encryption.EncryptionConfiguration{},
	}
}

func addLoggingGates() {}

func validateKubelet(c *kubeletconfig.KubeletConfiguration) error {
	return kubeletvalidation.ValidateKubeletConfiguration(c)
}

func controllerManagerFlags(o *kcmoptions.KubeControllerManagerOptions) cliflag.NamedFlagSets {
	return o.Flags(nil, nil)
}

func loadEncryption(path string) error {
	_, err := encryptionconfig.GetTransformerOverrides(path)
	return err
}

func decodeAuthentication(data []byte) {
	die(errors.New("this release has no AuthenticationConfiguration"))
}
