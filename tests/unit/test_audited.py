"""What `requirements/run-audit` says: a package that nobody could be asked about does not look clean."""

from requirements.audited import told


def test_a_known_vulnerability_is_told_with_where_it_is_fixed() -> None:
    lines, known = told("host", [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}, {"name": "b", "version": "1", "vulns": []}])  # fmt: skip
    assert known
    assert lines == ["  !!  host: 2 of 2 packages were checked, 1 have known vulnerabilities", "      a 1: CVE-1, fixed in 2"]  # fmt: skip


def test_packages_that_nobody_could_be_asked_about_are_not_clean() -> None:
    lines, known = told("host", [{"name": "a", "skip_reason": "not found"}, {"name": "b", "skip_reason": "not found"}])
    assert not known
    assert lines[0].startswith("  !!  host: 0 of 2 packages")
    assert lines[1] == "      not checked: not found (and 1 more)"


def test_a_clean_group_is_ok() -> None:
    assert told("host", [{"name": "a", "version": "1", "vulns": []}]) == (
        ["  ok  host: 1 of 1 packages were checked, 0 have known vulnerabilities"],
        False,
    )
