// From 1.30 on: AuthenticationConfiguration, and an encryption configuration that is loaded for one API server.
package main

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	apiserver "k8s.io/apiserver/pkg/apis/apiserver"
	apiserverinstall "k8s.io/apiserver/pkg/apis/apiserver/install"
	encryption "k8s.io/apiserver/pkg/apis/apiserver/v1"
	apiserverv1beta1 "k8s.io/apiserver/pkg/apis/apiserver/v1beta1"
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
		"KubeSchedulerConfiguration":  scheduler.KubeSchedulerConfiguration{},
		"EncryptionConfiguration":     encryption.EncryptionConfiguration{},
		"AuthenticationConfiguration": apiserverv1beta1.AuthenticationConfiguration{},
	}
}

func addLoggingGates() {
	_ = logsapi.AddFeatureGates(utilfeature.DefaultMutableFeatureGate)
}

func validateKubelet(c *kubeletconfig.KubeletConfiguration) error {
	return kubeletvalidation.ValidateKubeletConfiguration(c, utilfeature.DefaultFeatureGate)
}

func controllerManagerFlags(o *kcmoptions.KubeControllerManagerOptions) cliflag.NamedFlagSets {
	return o.Flags(nil, nil, nil)
}

func loadEncryption(path string) error {
	_, err := encryptionconfig.LoadEncryptionConfig(context.Background(), path, true, "judge")
	return err
}

func decodeAuthentication(data []byte) {
	scheme := runtime.NewScheme()
	apiserverinstall.Install(scheme)
	_ = decodeInto(serializer.NewCodecFactory(scheme, serializer.EnableStrict), data).(*apiserver.AuthenticationConfiguration)
}
