"""What compose.yaml says is what is run, and what does not hold is told."""

from __future__ import annotations

import yaml

from load_tests.container import COMPOSE, Found, composed, errors, told, unconfined, verdict

STATUS = """\
Name:\tpython3
Uid:\t10001\t10001\t10001\t10001
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
"""


def test_the_services_of_compose_yaml_are_run_with_its_hardening() -> None:
    compose = composed(yaml.safe_load(COMPOSE.read_text()), 1000)
    for flags in (compose.weights, compose.service):
        assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init"} <= {*flags}
        assert "--volume=streamsvc:/var/lib/streamsvc" in flags
    assert compose.pull[:2] == ["models", "pull"]
    assert compose.gateway.endswith(".1")
    assert f'--env=STREAMSVC_INGEST__ADVERTISE=["{compose.gateway}"]' in compose.service
    assert "TURN" not in " ".join(compose.service)
    assert "--stop-timeout=60" in compose.service


def test_a_process_that_may_do_more_is_told() -> None:
    assert unconfined([STATUS, STATUS]) == []
    assert unconfined([STATUS.replace("Eff:\t00", "Eff:\t20")]) == ["CapEff 2000000000000000"]
    assert unconfined([STATUS.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0")]) == ["NoNewPrivs 0"]
    assert unconfined([STATUS.replace("Seccomp:\t2", "Seccomp:\t0")]) == ["Seccomp 0"]
    assert unconfined([STATUS.replace("Uid:\t10001", "Uid:\t0")]) == ["Uid 0\t10001\t10001\t10001"]


def test_errors_of_a_log_are_found_among_its_other_lines() -> None:
    log = '{"level": "info", "event": "a"}\nReady: http://a\n{"level": "error", "event": "it broke"}\n'
    assert errors(log) == ["it broke"]
    assert errors("Traceback (most recent call last):\n") == ["Traceback (most recent call last):"]
    assert errors('{"level": "warning", "event": "a"}\n3\n') == []


def test_a_check_that_does_not_hold_is_wrong() -> None:
    found = Found({"build": 61.2}, 1234.5)
    found.add("user", True, "10001:10001")
    assert verdict(found) == []
    found.add("health check", False, "exit status 1")
    assert verdict(found) == ["health check: exit status 1"]
    assert told(found).startswith("build 61 s; image 1234 MB\n")
    assert "| health check | no    | exit status 1 |" in told(found)
