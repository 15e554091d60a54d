// Judge links the decoders and flag sets of one Kubernetes release. "dump" prints every flag and every field of the
// configuration kinds as JSON; with file names it decodes and validates them as the programs do at start.
// What is called differently from release to release is in fit_*.go, of which build.sh takes one.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	auditpolicy "k8s.io/apiserver/pkg/audit/policy"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/version/verflag"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	kcmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	proxyapp "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	kubeletoptions "k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubeletscheme "k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	proxyconfig "k8s.io/kubernetes/pkg/proxy/apis/config"
	proxyscheme "k8s.io/kubernetes/pkg/proxy/apis/config/scheme"
	proxyvalidation "k8s.io/kubernetes/pkg/proxy/apis/config/validation"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	schedulerscheme "k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	schedulervalidation "k8s.io/kubernetes/pkg/scheduler/apis/config/validation"
)

type flagInfo struct {
	Name       string `json:"name"`
	Type       string `json:"type"`
	Default    string `json:"default"`
	Deprecated string `json:"deprecated,omitempty"`
	Hidden     bool   `json:"hidden,omitempty"`
}

func dump(fs *pflag.FlagSet) []flagInfo {
	var out []flagInfo
	fs.VisitAll(func(f *pflag.Flag) {
		out = append(out, flagInfo{f.Name, f.Value.Type(), f.DefValue, f.Deprecated, f.Hidden})
	})
	return out
}

func named(fss cliflag.NamedFlagSets, name string) *pflag.FlagSet {
	verflag.AddFlags(fss.FlagSet("global"))
	globalflag.AddGlobalFlags(fss.FlagSet("global"), name)
	all := pflag.NewFlagSet(name, pflag.ContinueOnError)
	for _, f := range fss.FlagSets {
		all.AddFlagSet(f)
	}
	return all
}

func fields(t reflect.Type, prefix string, seen map[reflect.Type]bool, out map[string]string) {
	for t.Kind() == reflect.Ptr || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() == reflect.Map {
		e := t.Elem()
		if e.Kind() == reflect.Struct {
			fields(e, prefix+".*", seen, out)
		}
		return
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	if !strings.HasPrefix(t.PkgPath(), "k8s.io/") || strings.Contains(t.PkgPath(), "apimachinery") && t.Name() != "TypeMeta" {
		return
	}
	seen[t] = true
	defer delete(seen, t)
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name := strings.Split(tag, ",")[0]
		if strings.Contains(tag, ",inline") || (name == "" && f.Anonymous) {
			fields(f.Type, prefix, seen, out)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		p := name
		if prefix != "" {
			p = prefix + "." + name
		}
		out[p] = f.Type.String()
		fields(f.Type, p, seen, out)
	}
}

func fieldsOf(v interface{}) []string {
	out := map[string]string{}
	fields(reflect.TypeOf(v), "", map[reflect.Type]bool{}, out)
	var keys []string
	for k := range out {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func decodeInto(codecs serializer.CodecFactory, data []byte) runtime.Object {
	obj, gvk, err := codecs.UniversalDecoder().Decode(data, nil, nil)
	die(err)
	fmt.Println(gvk)
	return obj
}

func main() {
	if os.Args[1] == "dump" {
		addLoggingGates()
		kcm, err := kcmoptions.NewKubeControllerManagerOptions()
		die(err)
		kf := controllerManagerFlags(kcm)
		// after the controller manager, which changes a feature gate before the first flag set takes the gates
		af := apiserveroptions.NewServerRunOptions().Flags()
		sched := scheduleroptions.NewOptions()
		kubelet := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
		kubelet.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
		kflags := kubeletoptions.NewKubeletFlags()
		kconf, err := kubeletoptions.NewKubeletConfiguration()
		die(err)
		kflags.AddFlags(kubelet)
		kubeletoptions.AddKubeletConfigFlags(kubelet, kconf)
		kubeletoptions.AddGlobalFlags(kubelet)
		kinds := map[string]interface{}{
			"KubeletConfiguration":   fieldsOf(kubeletv1beta1.KubeletConfiguration{}),
			"KubeProxyConfiguration": fieldsOf(kubeproxyv1alpha1.KubeProxyConfiguration{}),
			"Policy":                 fieldsOf(auditv1.Policy{}),
		}
		for kind, value := range moreKinds() {
			kinds[kind] = fieldsOf(value)
		}
		out := map[string]interface{}{
			"flags": map[string]interface{}{
				"kube-apiserver":          dump(named(af, "kube-apiserver")),
				"kube-controller-manager": dump(named(kf, "kube-controller-manager")),
				"kube-scheduler":          dump(named(*sched.Flags, "kube-scheduler")),
				"kubelet":                 dump(kubelet),
				"kube-proxy":              dump(proxyapp.NewProxyCommand().Flags()),
			},
			"fields": kinds,
		}
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", " ")
		die(enc.Encode(out))
		return
	}
	for _, path := range os.Args[1:] {
		data, err := os.ReadFile(path)
		die(err)
		text := string(data)
		switch {
		case strings.Contains(text, "kind: KubeletConfiguration"):
			_, codecs, err := kubeletscheme.NewSchemeAndCodecs(serializer.EnableStrict)
			die(err)
			c := decodeInto(*codecs, data).(*kubeletconfig.KubeletConfiguration)
			addLoggingGates()
			die(validateKubelet(c))
		case strings.Contains(text, "kind: KubeProxyConfiguration"):
			c := decodeInto(serializer.NewCodecFactory(proxyscheme.Scheme, serializer.EnableStrict), data)
			die(proxyvalidation.Validate(c.(*proxyconfig.KubeProxyConfiguration)).ToAggregate())
		case strings.Contains(text, "kind: KubeSchedulerConfiguration"):
			c := decodeInto(serializer.NewCodecFactory(schedulerscheme.Scheme, serializer.EnableStrict), data)
			die(schedulervalidation.ValidateKubeSchedulerConfiguration(c.(*schedulerconfig.KubeSchedulerConfiguration)))
		case strings.Contains(text, "kind: EncryptionConfiguration"):
			die(loadEncryption(path))
		case strings.Contains(text, "audit.k8s.io"):
			_, err := auditpolicy.LoadPolicyFromFile(path)
			die(err)
		case strings.Contains(text, "kind: AuthenticationConfiguration"):
			decodeAuthentication(data)
		default:
			die(fmt.Errorf("%s: unknown kind", path))
		}
		fmt.Println("ok", path)
	}
}
