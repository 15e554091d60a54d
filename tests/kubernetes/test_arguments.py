"""Command lines in units: the user wins, literals are escaped, variables are not."""

from __future__ import annotations

from imagegen.kubernetes.arguments import FromEnvironment, emit_exec_start, merge_arguments


def test_the_user_wins_over_a_literal_and_over_a_variable() -> None:
    ours: dict[str, str | FromEnvironment] = {"v": "2", "node-ip": FromEnvironment("NODE_ADDRESS")}
    merged = merge_arguments(ours, {"v": "4", "node-ip": "10.0.0.9", "feature-gates": "A=true"})
    assert list(merged.items()) == [("feature-gates", "A=true"), ("node-ip", "10.0.0.9"), ("v", "4")]


def test_literals_are_escaped_for_systemd_and_variables_stay() -> None:
    text = emit_exec_start(
        "/usr/local/bin/x",
        {"a": 'one "two" $HOME %n \\', "b": FromEnvironment("NODE_NAME"), "c": "", "d": "line\nbreak"},
    )
    assert text.split("\n") == [
        "/usr/local/bin/x",
        '"--a=one \\"two\\" $$HOME %%n \\\\"',
        "--b=${NODE_NAME}",
        "--c=",
        '"--d=line\\nbreak"',
    ]


def test_feature_gates_are_merged_gate_by_gate() -> None:
    """The user's gates come beside ours: kube-proxy 1.9 needs SupportIPVSProxyMode for ipvs."""
    ours = {"feature-gates": "SupportIPVSProxyMode=true,A=true"}
    merged = merge_arguments(ours, {"feature-gates": "B=true,A=false"})
    assert merged == {"feature-gates": "SupportIPVSProxyMode=true,A=false,B=true"}
    assert merge_arguments({}, {"feature-gates": "B=true"}) == {"feature-gates": "B=true"}
