// From 1.25 on: the encryption configuration is loaded without a context.
package main

import (
	"errors"

	encryption "k8s.io/apiserver/pkg/apis/config/v1"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	scheduler "k8s.io/kube-scheduler/config/v1"
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

func addLoggingGates() {
	_ = logsapi.AddFeatureGates(utilfeature.DefaultMutableFeatureGate)
}

func validateKubelet(c *kubeletconfig.KubeletConfiguration) error {
	return kubeletvalidation.ValidateKubeletConfiguration(c, utilfeature.DefaultFeatureGate)
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
