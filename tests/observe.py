#!/usr/bin/env python3
"""Whether what operators look at is true: the alerts and the dashboards of the chart.

    tests/observe.py --offline                 against the metrics that the programs say they have, without a cluster
    tests/observe.py --prometheus URL          against a Prometheus that scrapes a release (kubectl port-forward)
    tests/observe.py --render                  writes k8s/prometheus-rules.yaml anew from the chart

Offline it needs promtool (Debian's package prometheus), and Helm to compare what was rendered. With a Prometheus it needs
neither. It fails with a list of all that is wrong. Nothing but Python's standard library is used.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "k8s/prometheus-rules.yaml"
ALERT_TESTS = ROOT / "tests/observe/alerts.test.yaml"
ALERT_DOCS = ROOT / "docs/alerts.md"
# Where the programs' tests hold the text that they give to Prometheus.
SNAPSHOTS = ["sync/tests/sync/snapshots/*every_metric*.snap", "manager/tests/http/snapshots/*figures*.snap"]

# What a program has only where it is used, so that no snapshot shows it.
NOT_ALWAYS = {
    "udht_kubernetes_up": "gauge",
    "udht_floor_held_back": "gauge",
}

METRIC = re.compile(r"\budht_[a-z0-9_]+")
# How a panel may be told to look, by its type, and what it then needs.
DATA_PANELS = {"stat", "timeseries", "heatmap"}
UNITS = {"none", "short", "s", "ops", "reqps", "Bps", "bytes", "percentunit"}
RULES_HEAD = """\
# Written by `make render` from charts/udht/rules with its default values; change it there.
# For k8s/prometheus.yaml, and for any Prometheus without the Operator: the alerts of every release that it scrapes.
apiVersion: v1
kind: ConfigMap
metadata:
  name: prometheus-rules
  labels:
    app.kubernetes.io/name: prometheus
data:
  udht.rules.yaml: |
"""


class Wrong(list):
    """What is wrong, in sentences."""

    def unless(self, good, sentence):
        if not good:
            self.append(sentence)


# --- What the programs say of themselves


def exported():
    """The families that the programs have, each with its kind and its labels."""
    families = {}
    for pattern in SNAPSHOTS:
        files = list(ROOT.glob(pattern))
        if not files:
            sys.exit(f"observe: no file is {pattern}: where do the metrics' snapshots stand now?")
        for file in files:
            for line in file.read_text().splitlines():
                if line.startswith("# TYPE "):
                    _, _, name, kind = line.split()
                    families[name] = (kind, set())
            for line in file.read_text().splitlines():
                if line.startswith("udht_"):
                    name = family(METRIC.match(line)[0], families)
                    found = re.match(r"[a-z0-9_]+\{(.*)\} ", line)
                    if name and found:
                        families[name][1].update(re.findall(r'(\w+)="', found[1]))
    for name, kind in NOT_ALWAYS.items():
        families.setdefault(name, (kind, {"reason", "replica", "result", "resource", "verb", "state"}))
    return families


def family(name, families):
    """The family of a sample's name, or None."""
    if name in families:
        return name
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and families.get(base, ("",))[0] == "histogram":
            return base
    return None


# --- What the chart has


def dashboards(chart):
    return {path.name: json.loads(path.read_text()) for path in sorted(Path(chart).glob("dashboards/*.json"))}


def panels(board):
    """All panels that show something, those in folded rows too."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panels(panel)
        else:
            yield panel


def rules_text():
    """The rules as Prometheus reads them, out of the ConfigMap."""
    _, _, text = RULES.read_text().partition(".yaml: |\n")
    return "".join(line[4:] if line.startswith("    ") else line for line in text.splitlines(keepends=True))


def alerts(text):
    """Each alert of a rules file that Helm wrote: its name and its lines by key. Its form is known, so this is no YAML
    parser; promtool reads it whole."""
    parts = re.split(r"(?m)^ *- alert: (\w+)$", text)
    for name, body in zip(parts[1::2], parts[2::2]):
        found = {}
        key_indent = re.search(r"(?m)^( +)annotations:", body)[1]
        key = None
        for line in body.splitlines():
            start = re.match(key_indent + r"(\w+): ?(.*)$", line)
            if start:
                key, rest = start.groups()
                found[key] = "" if rest in ("|-", "|", ">-") else rest
            elif key:
                found[key] += "\n" + line.strip()
        yield name, found


def render(helm):
    """The ConfigMap of the rules, from the chart."""
    settings = "monitoring.rules.enabled=true,monitoring.rules.anyRelease=true"
    command = [helm, "template", "udht", str(ROOT / "charts/udht"), "--namespace", "udht", "--set", settings,
               "--api-versions", "monitoring.coreos.com/v1",
               "--kube-version", "1.29.0", "--show-only", "templates/prometheusrule.yaml"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    _, _, spec = text.partition("\nspec:\n")
    spec = spec.rstrip("\n") + "\n"
    return RULES_HEAD + "".join("  " + line if line.strip() else line for line in spec.splitlines(keepends=True))


# --- Without a cluster


def check_names(where, expression, families, wrong):
    for name in sorted(set(METRIC.findall(expression))):
        known = family(name, families)
        wrong.unless(known, f"{where}: no program has the metric {name}")
        if not known:
            continue
        kind, labels = families[known]
        for matchers in re.findall(re.escape(name) + r"\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers):
                allowed = labels | {"namespace", "release", "pod"}
                wrong.unless(label in allowed, f"{where}: {name} has no label {label}")
        # What only grows says nothing but its growth, or its total since the start; what comes and goes has no rate.
        rated = re.search(r"\b(?:rate|increase)\(\s*" + re.escape(name) + r"\b", expression)
        wrong.unless(not rated or kind in ("counter", "histogram"), f"{where}: {name} is a {kind} and has no rate")


def check_board(file, board, families, wrong):
    ids = [panel["id"] for panel in board["panels"]] + [
        panel["id"] for row in board["panels"] if row["type"] == "row" for panel in row["panels"]]
    wrong.unless(len(ids) == len(set(ids)), f"{file}: two panels have one id")
    wrong.unless(board.get("uid") == file.removesuffix(".json"), f"{file}: its uid is not its name")
    wrong.unless(board.get("description"), f"{file}: it has no description")
    variables = {variable["name"] for variable in board["templating"]["list"]}
    wrong.unless({"datasource", "namespace", "release"} <= variables, f"{file}: a variable is missing")
    for variable in board["templating"]["list"]:
        wrong.unless(variable.get("description") and variable.get("label"), f"{file}: ${variable['name']} is not explained")
        check_names(f"{file}: ${variable['name']}", str(variable.get("definition", "")), families, wrong)
    taken = set()
    titles = set()
    section = ""
    for panel in board["panels"]:
        section = panel["title"] if panel["type"] == "row" else section
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        where = f"{file}: {section} / {panel['title']}"
        wrong.unless(not cells & taken and place["x"] + place["w"] <= 24, f"{where}: it lies over another")
        taken |= cells
        wrong.unless((section, panel["title"]) not in titles or panel["type"] == "row", f"{where}: that title comes twice")
        titles.add((section, panel["title"]))
    for panel in panels(board):
        where = f"{file}: {panel['title']}"
        defaults = panel["fieldConfig"]["defaults"]
        steps = defaults.get("thresholds", {}).get("steps", [])
        wrong.unless(panel["type"] in DATA_PANELS, f"{where}: a {panel['type']} is not known here")
        wrong.unless(defaults.get("unit") in UNITS, f"{where}: the unit {defaults.get('unit')} is not known here")
        wrong.unless(len(panel.get("description", "")) > 20, f"{where}: it is not explained")
        values = [step["value"] for step in steps]
        wrong.unless(values[:1] == [None] and values[1:] == sorted(values[1:]), f"{where}: its thresholds do not rise")
        wrong.unless(panel["datasource"]["uid"] == "${datasource}", f"{where}: it is bound to one Prometheus")
        wrong.unless(panel["targets"], f"{where}: it asks nothing")
        for target in panel["targets"]:
            expression = target["expr"]
            used = set(re.findall(r"\$(\w+)", expression)) - {"__rate_interval"}
            wrong.unless(used <= variables, f"{where}: ${used - variables} is no variable")
            scope = ['namespace="$namespace"', 'release="$release"'] + ['pod="$pod"'] * ("pod" in variables)
            for matchers in re.findall(r"udht_\w+(\{[^}]*\})?", expression):
                wrong.unless(all(part in matchers for part in scope), f"{where}: it asks for more than its release: {expression}")
            wrong.unless("[" not in expression or "[$__rate_interval]" in expression or "[1h]" in expression,
                         f"{where}: its range does not follow the step: {expression}")
            check_names(where, expression, families, wrong)


def check_rules(families, wrong):
    text = rules_text()
    found = dict(alerts(text))
    wrong.unless(len(found) == text.count("- alert:"), "an alert cannot be read: this program knows Helm's form only")
    sections = {line[3:].strip() for line in ALERT_DOCS.read_text().splitlines() if line.startswith("## ")}
    tested = set(re.findall(r'alertname="(\w+)"', ALERT_TESTS.read_text()))
    for name, alert in found.items():
        check_names(name, alert["expr"], families, wrong)
        wrong.unless(name in sections, f"{name}: docs/alerts.md has no section of that name")
        wrong.unless(name in tested, f"{name}: no test of tests/observe/alerts.test.yaml is about it")
        wrong.unless(re.search(r"severity: (critical|warning)", alert["labels"]), f"{name}: how severe is it?")
        for key in ("summary:", "description:", f"runbook_url: docs/alerts.md#{name.lower()}"):
            wrong.unless(key in alert["annotations"], f"{name}: it has no {key}")
        wrong.unless("instance" not in alert["expr"], f"{name}: a pod that starts again has another instance")
    for name in sections - set(found) - {"Alarms"}:
        wrong.append(f"docs/alerts.md: {name} is no alert")
    return found


def promtool(wrong):
    program = shutil.which("promtool")
    if not program:
        wrong.append("promtool is missing: it is in Debian's package prometheus")
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "udht.rules.yaml").write_text(rules_text())
        shutil.copy(ALERT_TESTS, folder)
        for command in (["check", "rules", "udht.rules.yaml"], ["test", "rules", ALERT_TESTS.name]):
            done = subprocess.run([program, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            wrong.unless(done.returncode == 0, f"promtool {' '.join(command)}:\n{done.stdout}")


def shows(helm, *settings, operator=True, good=True):
    """What the chart renders with these settings, or what it says against them."""
    command = [helm, "template", "mine", str(ROOT / "charts/udht"), "--namespace", "here", "--kube-version", "1.29.0"]
    command += ["--api-versions", "monitoring.coreos.com/v1"] * operator
    for setting in settings:
        # A number with a point is a text to --set of Helm 4.
        command += ["--set-json" if re.search(r"=[0-9.]+$", setting) else "--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if (done.returncode == 0) != good:
        sys.exit(f"observe: {' '.join(command)}: {done.stderr or 'that was taken'}")
    return done.stdout if good else done.stderr


def check_chart(helm, wrong):
    """The templates, with the kinds of the Operator and without."""
    if RULES.read_text() != render(helm):
        wrong.append("k8s/prometheus-rules.yaml is not what the chart says: `make render` writes it anew")
    on = ["monitoring.podMonitor.enabled=true", "monitoring.rules.enabled=true", "monitoring.dashboards.enabled=true"]
    kinds = lambda text: set(re.findall(r"(?m)^kind: (\w+)", text))
    operators = {"PodMonitor", "PrometheusRule"}
    wrong.unless(not kinds(shows(helm)) & (operators | {"ConfigMap"}), "monitoring is not off by default")
    text = shows(helm, *on)
    wrong.unless(operators <= kinds(text), "the kinds of the Operator are not rendered where they are known")
    wrong.unless(text.count('grafana_dashboard: "1"') == 2, "there are not two dashboards with the label")
    wrong.unless('udht_isolated{namespace="here",release="mine"}' in text, "the alerts are not of the release alone")
    wrong.unless("$(" not in "".join(kept for kept in re.findall(r"(?ms)^kind: PrometheusRule.*?^---", text + "\n---")),
                 "a threshold of the rules has no value")
    without = kinds(shows(helm, *on, operator=False))
    wrong.unless(not operators & without, "the kinds of the Operator are rendered where nobody knows them")
    wrong.unless("ConfigMap" in without, "dashboards need no Operator")
    # Of each value, that it arrives.
    for settings, there in [
        (["monitoring.podMonitor.labels.team=net"], "team: net"),
        (["monitoring.podMonitor.interval=7s"], "interval: 7s"),
        (["monitoring.rules.alertLabels.pager=yes"], "pager: \"yes\""),
        (["monitoring.rules.runbook=https://books.example/udht"], "https://books.example/udht#udhtisolated"),
        (["monitoring.rules.thresholds.clockSkewSeconds=0.25"], "> 0.25"),
        (["monitoring.rules.thresholds.divergedMinutes=45"], "[45m:30s]"),
        (["monitoring.rules.thresholds.authorityDays=12"], "< 12 * 86400"),
        (["tls.mode=secret", "tls.secretName=mine"], "< 168 * 3600"),
        (["tls.mode=secret", "tls.secretName=mine", "monitoring.rules.thresholds.certificateHours=2"], "< 2 * 3600"),
        (["monitoring.dashboards.namespace=grafana"], "namespace: grafana"),
        (["monitoring.dashboards.annotations.grafana_folder=UDHT"], "grafana_folder: UDHT"),
    ]:
        wrong.unless(there in shows(helm, *on, *settings), f"{settings} does not lead to {there}")
    text = shows(helm, *on, "monitoring.rules.disabled={UdhtBrakeOn}")
    wrong.unless("alert: UdhtBrakeOn" not in text and "alert: UdhtIsolated" in text, "an alert is not left out")
    for setting, says in [
        ("monitoring.rules.disabled={UdhtNone}", "there is no such alert"),
        ("monitoring.rules.thresholds.strangers=-1", "strangers"),
        ("monitoring.podMonitor.interval=often", "interval"),
        ("monitoring.typo=1", "typo"),
    ]:
        wrong.unless(says in shows(helm, *on, setting, good=False), f"{setting}: the refusal does not name it")


def offline(chart, helm):
    wrong = Wrong()
    families = exported()
    boards = dashboards(chart)
    wrong.unless(len(boards) == 2, f"there are {len(boards)} dashboards, and not two")
    for file, board in boards.items():
        check_board(file, board, families, wrong)
    found = check_rules(families, wrong)
    promtool(wrong)
    if shutil.which(helm):
        check_chart(helm, wrong)
    elif os.environ.get("CI"):
        wrong.append(f"{helm} is missing: https://helm.sh/docs/intro/install says how to get it")
    else:
        print(f"observe: skipped: {helm} is missing, so the chart's templates are not rendered")
    used = set()
    for expression in [alert["expr"] for alert in found.values()] + [
            target["expr"] for board in boards.values() for panel in panels(board) for target in panel["targets"]]:
        used |= {family(name, families) for name in METRIC.findall(expression)}
    unused = sorted(set(families) - used)
    print(f"observe: {len(families)} metrics, {len(found)} alerts, {sum(1 for it in boards.values() for _ in panels(it))} panels;"
          f" shown nowhere: {', '.join(unused) or 'none'}")
    return wrong


# --- With a Prometheus


class Prometheus:
    def __init__(self, url):
        self.url = url.rstrip("/")

    def ask(self, path, **parameters):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{path} {parameters}: {error.read().decode(errors='replace')}") from None

    def values(self, expression):
        """The series that the query has, and that are numbers."""
        data = self.ask("query", query=expression)
        samples = [data] if data["resultType"] == "scalar" else [row["value"] for row in data["result"]]
        return [float(value) for _, value in samples if value != "NaN"]


def filled(expression, namespace, release, pod):
    """A panel's query with its variables, as Grafana would ask it."""
    for name, value in (("__rate_interval", "5m"), ("namespace", namespace), ("release", release), ("pod", pod)):
        expression = expression.replace(f"${name}", value)
    return expression


def releases(prometheus, namespace, release):
    """The releases that are scraped, each with its pods; those that were asked for."""
    found = {}
    for row in prometheus.ask("query", query="max by (namespace, release, pod) (udht_sync_build_info)")["result"]:
        labels = row["metric"]
        key = (labels.get("namespace"), labels.get("release"))
        if namespace in (None, key[0]) and release in (None, key[1]):
            found.setdefault(key, []).append(labels.get("pod"))
    return found


def look(prometheus, chart, namespace, release, rules_loaded):
    """All that has no value there, as of now."""
    wrong = Wrong()
    found = releases(prometheus, namespace, release)
    if not found:
        return Wrong([f"Prometheus has no figures of a release {namespace or '*'}/{release or '*'}"])
    boards = dashboards(chart)
    rules = dict(alerts(rules_text()))
    for (namespace, release), pods in found.items():
        where = f"{namespace}/{release}"
        scope = f'{{namespace="{namespace}",release="{release}"}}'
        names = {name for alert in rules.values() for name in METRIC.findall(alert["expr"])}
        asked = 0
        for file, board in boards.items():
            ofpod = any(variable["name"] == "pod" for variable in board["templating"]["list"])
            for panel in panels(board):
                for target in panel["targets"]:
                    names |= set(METRIC.findall(target["expr"]))
                    # Of one pod's panels it is enough that some pod has something to show: what a pod never did it has
                    # no quantile of.
                    queries = [filled(target["expr"], namespace, release, pod) for pod in (pods if ofpod else [""])]
                    asked += 1
                    # What shows only that which is so now, as alarms, shows nothing where all is well: what it chooses from
                    # must be there.
                    queries = [query.removesuffix(" > 0") for query in queries]
                    wrong.unless(any(prometheus.values(query) for query in queries),
                                 f"{where}: {file}: {panel['title']}: nothing for {queries[0]}")
        for name in sorted(names):
            wrong.unless(prometheus.values(name + scope), f"{where}: {name} has no value")
        for pod in pods:
            wrong.unless(prometheus.values(f'udht_sync_build_info{{pod="{pod}",namespace="{namespace}"}}'), f"{where}: {pod}")
        print(f"observe: {where}: {len(pods)} pods, {len(names)} metrics, {asked} queries of panels")
    if rules_loaded:
        loaded = {rule["name"]: rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
        for name in rules:
            health = loaded.get(name, {}).get("health", "missing")
            wrong.unless(health == "ok", f"{name}: its rule is {health}: {loaded.get(name, {}).get('lastError', '')}")
        firing = [alert for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"]
        for alert in firing:
            print(f"observe: fires: {alert['labels']['alertname']}: {alert['annotations'].get('summary')}")
        print(f"observe: {len(loaded)} rules are loaded, {len(firing)} alerts fire")
    return wrong


def online(arguments):
    """Looks until all has a value: rates need two scrapes, and a fresh Prometheus has none."""
    prometheus = Prometheus(arguments.prometheus)
    end = time.monotonic() + arguments.wait
    while True:
        try:
            wrong = look(prometheus, arguments.chart, arguments.namespace, arguments.release, not arguments.no_rules)
        except (OSError, ValueError) as error:
            wrong = Wrong([str(error)])
        if not wrong or time.monotonic() >= end:
            return wrong
        print(f"observe: {len(wrong)} have no value yet: {wrong[0]}", flush=True)
        time.sleep(5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--offline", action="store_true", help="no cluster")
    what.add_argument("--prometheus", metavar="URL", help="a Prometheus that scrapes a release")
    what.add_argument("--render", action="store_true", help="write k8s/prometheus-rules.yaml")
    parser.add_argument("--chart", default=ROOT / "charts/udht")
    parser.add_argument("--namespace", help="of the release; all that are scraped")
    parser.add_argument("--release", help="all that are scraped")
    parser.add_argument("--wait", type=float, default=90, metavar="SECONDS", help="for values, at the most (90)")
    parser.add_argument("--no-rules", action="store_true", help="that Prometheus has no rules loaded")
    arguments = parser.parse_args()
    helm = os.environ.get("HELM", "helm")
    if arguments.render:
        RULES.write_text(render(helm))
        return
    wrong = offline(arguments.chart, helm) if arguments.offline else online(arguments)
    for sentence in wrong:
        print(f"observe: WRONG: {sentence}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
