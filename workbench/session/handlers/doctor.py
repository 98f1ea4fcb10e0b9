"""Diagnosing the worker's own interpreter, or a pasted report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from workbench.doctor.compare import compare
from workbench.doctor.diagnose import diagnose
from workbench.doctor.environments import find_environments
from workbench.doctor.facts import Facts, facts_from_dict
from workbench.doctor.gather import gather_files, gather_light, gather_live
from workbench.doctor.parse.report import parse_report
from workbench.doctor.report import to_json
from workbench.doctor.selftest import SelfTestStep, run_self_test, with_self_test
from workbench.session.protocol import (
    CompareReports,
    Diagnose,
    Diagnosed,
    DiagnoseText,
    DiagnosisUpdated,
    EnvironmentsListed,
    ListEnvironments,
    ReportsCompared,
    Request,
    RunSelfTest,
    SelfTested,
    SelfTestStepped,
)
from workbench.session.runtime import Context, Handler, Stage, quick


def _report(facts: Facts) -> dict[str, Any]:
    return to_json(diagnose(facts))


def _diagnose(request: Diagnose, context: Context) -> Diagnosed:
    if request.files_of:
        return Diagnosed(_report(gather_files(request.files_of, context.job, request.environment)))
    facts = gather_light(context.job, request.environment)
    if request.live:

        def tell(found: Facts) -> None:
            if request.updates:
                context.emit(DiagnosisUpdated(_report(found)))

        tell(facts)
        facts = gather_live(facts, context.job, tell, environ=request.environment)
    return Diagnosed(_report(facts))


def _diagnose_text(request: DiagnoseText, context: Context) -> Diagnosed:
    return Diagnosed(_report(parse_report(request.text)))


def _compare(request: CompareReports, context: Context) -> ReportsCompared:
    left, right = (facts_from_dict(report.get("facts")) for report in (request.left, request.right))
    return ReportsCompared([asdict(difference) for difference in compare(left, right)])


def _list_environments(request: ListEnvironments, context: Context) -> EnvironmentsListed:
    found = find_environments(context.job, request.directories, request.environment)
    return EnvironmentsListed([asdict(environment) for environment in found])


def _self_test(request: RunSelfTest, context: Context) -> SelfTested:
    def tell(step: SelfTestStep) -> None:
        context.emit(SelfTestStepped(asdict(step)))

    facts = facts_from_dict(request.report.get("facts")) if request.report else None
    steps = run_self_test(context.job, tell, facts, environ=request.environment)
    report = to_json(with_self_test(diagnose(facts), steps), steps) if facts is not None else None
    return SelfTested([asdict(step) for step in steps], report)


HANDLERS: dict[type[Request], Handler] = {
    Diagnose: Handler((Stage("children", _diagnose),)),
    DiagnoseText: quick(_diagnose_text),
    CompareReports: quick(_compare),
    ListEnvironments: quick(_list_environments),
    RunSelfTest: Handler((Stage("children", _self_test),)),
}
