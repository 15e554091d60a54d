"""Reads flags and configuration fields out of a source tree of Kubernetes, for minors that cannot be linked.

Usage: read_sources.py TREE VERSION > dump-VERSION.json, where TREE is the unpacked module k8s.io/kubernetes;
from 1.15 on its staging modules lie below staging/src/k8s.io. ``make_tables.py`` takes the result like a dump
of ``main.go``. Of 1.20 it finds what the ``--help`` of that version prints (``tests/judges/test_flags.py``).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_STAGING = "staging/src/k8s.io"
_SERVER = f"{_STAGING}/apiserver/pkg/server/options"
_TYPES = (
    r"Bool|Int|Int32|Int64|Uint|Uint32|Float32|Float64|String|StringSlice|StringArray|StringToString|Duration"
    r"|IP|IPNet|IPMask"
)
_METHOD = re.compile(rf"\.(?:(?:{_TYPES})(?:Var)?P?|VarP?F?)\(")
#: a literal, a word that may be a constant, or the start of the next statement
_WORD = re.compile(r'"([a-z][a-z0-9_-]*)"|(?<![\w.&])(\w*[fF]lag\w*|\n)(?=\s*,|\s*\w+\.\w+\()')
_CONSTANT = re.compile(r'\b(\w*[fF]lag\w*)\s+(?:string\s+)?= "([a-z][a-z0-9-]*)"')
_DEPRECATED = re.compile(r'(?:MarkDeprecated\(|registerDeprecated\(\w+, \w+, )\s*"([a-z0-9_-]+)"')
_REGISTERED = re.compile(r'\bregister\w*\(\w+, \w+, "([a-z0-9_-]+)"')
_AUDIT = re.compile(r'"audit-%s-([a-z-]+)"')
_FUNCTION = re.compile(r"^func (?:\(\w+ \*?(?P<type>\w+)\) )?(?P<name>\w+)\(", re.MULTILINE)

#: flags of the logging library, which every program takes over, with the minor in which they came
_LOGGING = {
    **dict.fromkeys(
        ("alsologtostderr", "log-backtrace-at", "log-dir", "log-flush-frequency", "logtostderr"), 6
    ),
    **dict.fromkeys(("stderrthreshold", "v", "version", "vmodule"), 6),
    **dict.fromkeys(("log-file", "skip-headers"), 13),
    **dict.fromkeys(("log-file-max-size", "skip-log-headers"), 14),
    "add-dir-header": 16,
    "one-output": 20,
}
_LOGGING_DEPRECATED, _LOGGING_REMOVED = 23, 26
_LOGGING_KEPT = {"log-flush-frequency", "v", "version", "vmodule"}
#: shared options that are not the API server's, and those that the other servers have when they name the word
_DELEGATING = re.compile(r"^(Delegating\w+|DeprecatedInsecureServing\w+|CoreAPIOptions|RecommendedOptions)$")
_SHARED = {
    "SecureServing": ("SecureServingOptions", "SecureServingOptionsWithLoopback"),
    "DelegatingAuthentication": (
        *("DelegatingAuthenticationOptions", "RequestHeaderAuthenticationOptions"),
        "ClientCertAuthenticationOptions",
    ),
    "DelegatingAuthorization": ("DelegatingAuthorizationOptions",),
    "InsecureServing": ("DeprecatedInsecureServingOptions", "DeprecatedInsecureServingOptionsWithLoopback"),
}
_LEADER = (
    "pkg/client/leaderelection",
    "pkg/client/leaderelectionconfig",
    f"{_STAGING}/component-base/config/options",
    f"{_STAGING}/apiserver/pkg/apis/config",
)
_METRICS = (
    f"{_STAGING}/component-base/metrics",
    f"{_STAGING}/component-base/logs",
    f"{_STAGING}/component-base/logs/api/v1",
)
#: of these options the cloud controller manager has more than the controller manager
_CLOUD, _CLOUD_SHARED = "cloud-provider/options", ("cloudprovider", "kubecloudshared", "servicecontroller")
#: component → folders whose flags it has whole
_FOLDERS = {
    "kube-apiserver": (
        "cmd/kube-apiserver/app/options",
        "pkg/kubeapiserver/options",
        "pkg/controlplane/apiserver/options",
        f"{_SERVER}",
        f"{_SERVER}/encryptionconfig",
        *_METRICS,
    ),
    "kube-controller-manager": (
        "cmd/kube-controller-manager/app/options",
        "cmd/controller-manager/app/options",
        f"{_STAGING}/controller-manager/options",
        f"{_STAGING}/controller-manager/pkg/leadermigration/options",
        f"{_STAGING}/cloud-provider/options",
        *_LEADER,
        *_METRICS,
    ),
    "kube-scheduler": (
        "cmd/kube-scheduler/app",
        "cmd/kube-scheduler/app/options",
        "plugin/cmd/kube-scheduler/app",
        "plugin/cmd/kube-scheduler/app/options",
        *_LEADER,
        *_METRICS,
    ),
    "kubelet": ("cmd/kubelet/app/options", "pkg/kubelet/config", *_METRICS[1:]),
    "kube-proxy": ("cmd/kube-proxy/app", "cmd/kube-proxy/app/options"),
}
_CADVISOR = (
    *("application-metrics-count-limit", "boot-id-file", "container-hints", "docker", "docker-only"),
    *("docker-env-metadata-whitelist", "docker-root", "docker-tls", "docker-tls-ca", "docker-tls-cert"),
    *("docker-tls-key", "enable-load-reader", "event-storage-age-limit", "event-storage-event-limit"),
    *("global-housekeeping-interval", "housekeeping-interval", "log-cadvisor-usage", "machine-id-file"),
    *(
        f"storage-driver-{name}"
        for name in ("buffer-duration", "db", "host", "password", "secure", "table", "user")
    ),
)
#: (component, flag) → (first minor, last minor): names that are put together, or come from a linked library
_HIDDEN = {
    **{(name, "feature-gates"): (6, 99) for name in _FOLDERS},
    **{(name, "help"): (6, 99) for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")},
    **{(name, "logging-format"): (19, 99) for name in _FOLDERS if name != "kube-proxy"},
    # an admission plug-in's own
    ("kube-apiserver", "default-not-ready-toleration-seconds"): (6, 99),
    ("kube-apiserver", "default-unreachable-toleration-seconds"): (6, 99),
    ("kube-proxy", "show-hidden-metrics-for-version"): (17, 99),
    ("kubelet", "config"): (10, 99),
    # taken and ignored; their names are in a list
    **{("kube-apiserver", name): (21, 23) for name in ("insecure-bind-address", "insecure-port")},
    # of cAdvisor, whose every flag the kubelet had before it began to choose
    **{("kubelet", name): (6, 9) for name in _CADVISOR},
}
#: kind → folders with its types, newest place first
_KINDS = {
    "KubeletConfiguration": (
        f"{_STAGING}/kubelet/config/v1beta1",
        "pkg/kubelet/apis/config/v1beta1",
        "pkg/kubelet/apis/kubeletconfig/v1beta1",
    ),
    "KubeProxyConfiguration": (
        f"{_STAGING}/kube-proxy/config/v1alpha1",
        "pkg/proxy/apis/config/v1alpha1",
        "pkg/proxy/apis/kubeproxyconfig/v1alpha1",
        "pkg/apis/componentconfig/v1alpha1",
    ),
    "KubeSchedulerConfiguration": (
        *(
            f"{_STAGING}/kube-scheduler/config/{v}"
            for v in ("v1", "v1beta3", "v1beta2", "v1beta1", "v1alpha2", "v1alpha1")
        ),
        "pkg/apis/componentconfig/v1alpha1",
    ),
    "EncryptionConfiguration": (
        f"{_STAGING}/apiserver/pkg/apis/apiserver/v1",
        f"{_STAGING}/apiserver/pkg/apis/config/v1",
    ),
    "Policy": tuple(f"{_STAGING}/apiserver/pkg/apis/audit/{v}" for v in ("v1", "v1beta1", "v1alpha1")),
}
_SHARED_TYPES = (
    f"{_STAGING}/component-base/config/v1alpha1",
    f"{_STAGING}/component-base/logs/api/v1",
    f"{_STAGING}/component-base/tracing/api/v1",
    f"{_STAGING}/apimachinery/pkg/apis/config/v1alpha1",
    f"{_STAGING}/apiserver/pkg/apis/config/v1alpha1",
    "pkg/apis/componentconfig/v1alpha1",
)
_STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r'^\s+(?:(\w+)\s+)?([\w.\[\]*]+)\s+`[^`]*json:"([^"]*)"')


@dataclass(frozen=True)
class Function:
    """``receiver`` is the type whose method it is, empty for a function; ``constants`` are names of flags."""

    receiver: str
    name: str
    body: str
    constants: Mapping[str, str]


def read_functions(folder: Path) -> Iterator[Function]:
    """The functions of a package for Linux, without comments."""
    texts = []
    for path in sorted(folder.glob("*.go")):
        if path.stem.endswith(("_test", "_windows", "_others", "_other", "_unsupported", "_providerless")):
            continue
        if folder.as_posix().endswith(_CLOUD) and path.stem not in _CLOUD_SHARED:
            continue
        texts.append(re.sub(r"(?m)(?<![:\"'])//.*$", "", path.read_text(errors="replace")))
    constants = {name: value for text in texts for name, value in _CONSTANT.findall(text)}
    for text in texts:
        starts = list(_FUNCTION.finditer(text))
        for match, after in zip(starts, [*starts[1:], None], strict=False):
            end = after.start() if after else len(text)
            yield Function(match["type"] or "", match["name"], text[match.start() : end], constants)


def list_names(body: str, constants: Mapping[str, str]) -> Iterator[str]:
    """The flags that a function registers; ``constants`` are the package's."""
    for match in _METHOD.finditer(body):
        for word in _WORD.finditer(body, match.end(), match.end() + 300):
            if word[2] == "\n":
                break
            name = word[1] or constants.get(word[2] or "")
            if name:
                yield name
                break
    for match in _REGISTERED.finditer(body):
        yield match[1].replace("_", "-")
    for match in _AUDIT.finditer(body):
        yield from (f"audit-{backend}-{match[1]}" for backend in ("log", "webhook"))


def choose_functions(tree: Path, component: str) -> Iterator[Function]:
    """The functions that register a component's flags."""
    own = [
        function
        for folder in _FOLDERS[component]
        if folder != _SERVER
        for function in read_functions(tree / folder)
    ]
    mentioned = "".join(function.body for function in own)
    has_insecure = "InsecureServing" in mentioned
    for folder in _FOLDERS[component]:
        for function in read_functions(tree / folder):
            insecure = function.receiver.startswith("DeprecatedInsecure")
            unwanted = folder == _SERVER and _DELEGATING.match(function.receiver) is not None
            if insecure:
                unwanted = not has_insecure or function.name != "AddFlags"
            if not unwanted:
                yield function
    if component in ("kube-controller-manager", "kube-scheduler"):
        for function in read_functions(tree / _SERVER):
            insecure = function.receiver.startswith("DeprecatedInsecure")
            if not any(function.receiver in names and word in mentioned for word, names in _SHARED.items()):
                continue
            if insecure and function.name != "AddUnqualifiedFlags":
                continue
            yield function


def read_flags(tree: Path, minor: int, component: str) -> list[dict[str, object]]:
    """Every flag of one component, in the form of a dump."""
    found: dict[str, bool] = {}
    for function in choose_functions(tree, component):
        deprecated = {name.replace("_", "-") for name in _DEPRECATED.findall(function.body)}
        # the fields of the file that are flags, too, are all marked in a loop
        every = "f.Deprecated = " in function.body or ".Deprecated = notice" in function.body
        for name in list_names(function.body, function.constants):
            if ("_" in name and name != "concurrent_rc_syncs") or name == "format":
                continue
            found[name] = found.get(name, False) or every or name in deprecated
        for name in deprecated & found.keys():
            found[name] = True
    for name, since in _LOGGING.items():
        kept = name in _LOGGING_KEPT
        if minor >= since and (kept or minor < _LOGGING_REMOVED):
            found[name] = not kept and minor >= _LOGGING_DEPRECATED
    for (owner, name), (first, last) in _HIDDEN.items():
        if owner == component and first <= minor <= last:
            found.setdefault(name, False)
    return [{"name": name, "deprecated": "yes" if old else ""} for name, old in sorted(found.items())]


def read_structs(folders: Iterable[Path]) -> dict[str, str]:
    """The bodies of all struct types by name; earlier folders win."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.go")):
            if not path.stem.endswith("_test"):
                for name, body in _STRUCT.findall(path.read_text(errors="replace")):
                    found.setdefault(name, body)
    return found


def list_fields(
    structs: dict[str, str], name: str, prefix: str = "", seen: tuple[str, ...] = ()
) -> Iterator[str]:
    """The paths of all fields below a type, as ``main.go`` prints them."""
    if name in seen or name not in structs:
        return
    for line in structs[name].splitlines():
        match = _FIELD.match(line)
        if match is None:
            continue
        go_name, kind, tag = match.groups()
        inner = re.sub(r"^(\[\]|\*|map\[\w+\])+", "", kind).rpartition(".")[2]
        field = tag.split(",")[0]
        if inner == "TypeMeta":
            yield from ("apiVersion", "kind")
        elif ",inline" in tag or (not field and go_name is None):
            yield from list_fields(structs, inner, prefix, (*seen, name))
        elif field and field != "-":
            path = f"{prefix}.{field}" if prefix else field
            yield path
            below = f"{path}.*" if kind.startswith("map[") else path
            yield from list_fields(structs, inner, below, (*seen, name))


def read_kind(tree: Path, kind: str) -> list[str]:
    """Every field of a configuration kind; empty when the release has no such kind."""
    for place in _KINDS[kind]:
        structs = read_structs(
            [tree / place, *(tree / shared for shared in _SHARED_TYPES if shared != place)]
        )
        if kind in read_structs([tree / place]):
            return sorted(set(list_fields(structs, kind)))
    return []


def read_tree(tree: Path, version: str) -> dict[str, object]:
    """The dump of one release."""
    minor = int(version.split(".")[1])
    return {
        "flags": {component: read_flags(tree, minor, component) for component in _FOLDERS},
        "fields": {kind: fields for kind in _KINDS if (fields := read_kind(tree, kind))},
    }


if __name__ == "__main__":
    json.dump(read_tree(Path(sys.argv[1]), sys.argv[2]), sys.stdout, indent=1)
