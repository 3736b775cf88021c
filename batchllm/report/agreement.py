"""What agreement.json holds, for people: lines of a run's summary, and the page that `batchllm consensus` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.report.summary import clipped, money, printable

_STATUSES = {
    "decided": "decided",
    "tied": "tied",
    "undecided": "undecided",
    "too_few": "with too few votes",
    "pending": "pending",
}
_MOST_PAIRS = 6


def agreement_lines(told: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Name and text of each line of a summary; what is not known is left out."""
    lines = [
        ("consensus", _decided(told)),
        ("agreement", _agreement(told)),
        ("accuracy", _accuracy(told)),
        ("a label", _cost(told)),
    ]
    return tuple((name, text) for name, text in lines if text)


def agreement_page(told: Mapping[str, Any], out: str) -> str:
    """The whole of it."""
    count = len(told.get("voters") or ())
    agreed = "the votes of one voter" if count == 1 else f"what {count:,} voters agree on"
    rows = [printable(f"{told.get('job', '')}: {agreed}"), ""]
    rows += [f"  {name:<9} {printable(text)}" for name, text in agreement_lines(told)]
    if calls := _calls(told):
        rows.append(f"  calls     {calls}")
    rows += ["", *_voters(told.get("voters") or (), has_cost=told.get("calls") is not None)]
    pairs = (told.get("agreement") or {}).get("cohen") or ()
    if 1 < len(pairs) <= _MOST_PAIRS:
        rows += ["", *(f"  {_pair(pair)}" for pair in pairs)]
    notes = [*(told.get("notes") or ()), *filter(None, [(told.get("agreement") or {}).get("note")])]
    if notes:
        rows += ["", *(printable(f"  note: {note}") for note in notes)]
    rows += ["", f"  table     {out}/consensus/*.parquet", f"  figures   {out}/consensus/agreement.json"]
    return "\n".join([*rows, f"  report    {out}/report.html"])


def _decided(told: Mapping[str, Any]) -> str:
    counts = told.get("counts") or {}
    said = [f"{counts.get('decided', 0):,} of {told.get('rows', 0):,} rows decided"]
    said += [
        f"{counts[status]:,} {words}"
        for status, words in _STATUSES.items()
        if status != "decided" and counts.get(status)
    ]
    return ", ".join(said)


def _agreement(told: Mapping[str, Any]) -> str:
    found = told.get("agreement") or {}
    said = [_figure("percent", found.get("percent"), is_share=True), _figure("alpha", found.get("alpha"))]
    why = [str(part["why"]) for part in (found.get("alpha") or {},) if part.get("why")]
    return ", ".join(text for text in said if text) or (f"none: {why[0]}" if why else "")


def _accuracy(told: Mapping[str, Any]) -> str:
    found = told.get("consensus") or {}
    accuracy = _figure("", found.get("accuracy"), is_share=True)
    if not accuracy:
        return ""
    judged = [
        voter
        for voter in told.get("voters") or ()
        if voter.get("against") == "gold" and (voter.get("accuracy") or {}).get("value") is not None
    ]
    whole = [voter for voter in judged if not _has_chosen_rows(voter)]
    beside = ""
    if whole:
        best = max(whole, key=lambda voter: float(voter["accuracy"]["value"]))
        of_them = "" if len(whole) == len(judged) else " of those asked about every row"
        right = best["accuracy"]
        beside = f"; the best voter{of_them}, {best['name']}: {right['value']:.1%} of {right['n']:,}"
    return f"{accuracy.strip()} of {found['accuracy']['n']:,} decided rows with gold{beside}"


def _has_chosen_rows(voter: Mapping[str, Any]) -> bool:
    """It was asked only about rows that others had left open: what is said of it is of the harder ones."""
    return bool(voter.get("is_late") or voter.get("not_asked"))


def _cost(told: Mapping[str, Any]) -> str:
    usd = (told.get("cost") or {}).get("per_decided_usd")
    mark = " (simulated)" if told.get("simulated") else ""
    return "" if usd is None else f"{money(usd)}{mark} for each row decided"


def _calls(told: Mapping[str, Any]) -> str:
    calls = told.get("calls") or {}
    return f"{calls['saved']:,} saved ({calls['saved_share']:.1%})" if calls.get("saved") else ""


def _figure(name: str, found: Mapping[str, Any] | None, *, is_share: bool = False) -> str:
    """A value with its interval; empty where there is none."""
    if not found or found.get("value") is None:
        return ""
    form = ".1%" if is_share else ".3f"
    text = f"{name} {found['value']:{form}}"
    if found.get("low") is not None and found.get("high") is not None:
        text += f" ({found['low']:{form}} to {found['high']:{form}})"
    return text


def _voters(voters: Sequence[Mapping[str, Any]], *, has_cost: bool) -> list[str]:
    """Votes that were there already have no cost."""
    names = [clipped(printable(str(voter["name"]))) for voter in voters]
    width = max([5, *map(len, names)])
    against = next((str(voter["against"]) for voter in voters if voter.get("against")), "")
    head = f"  {'voter':<{width}}  {'votes':>9}  {'missing':>8}  {'accuracy':>8}  {'macro F1':>8}"
    rows = [f"{head}  cost" if has_cost else head]
    for name, voter in zip(names, voters, strict=True):
        accuracy, score = (_value(voter.get(key)) for key in ("accuracy", "macro_f1"))
        cells = f"  {name:<{width}}  {voter['votes']:>9,}  {voter['missing']:>8,}  {accuracy:>8}  {score:>8}"
        mark = " (open rows only)" if _has_chosen_rows(voter) else ""
        cost = f"  {money(voter.get('cost_usd'))}" if has_cost else ""
        rows.append(f"{cells}{cost}{mark}")
    return [*rows, f"  (accuracy against {'gold' if against == 'gold' else 'the consensus'})"]


def _value(found: Mapping[str, Any] | None) -> str:
    return "-" if not found or found.get("value") is None else f"{found['value']:.1%}"


def _pair(pair: Mapping[str, Any]) -> str:
    names = f"{clipped(printable(str(pair['a'])))} and {clipped(printable(str(pair['b'])))}"
    return f"{names}: {_figure('kappa', pair) or str(pair.get('why', 'no kappa'))}"
