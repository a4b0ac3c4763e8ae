"""Which tests run where a file is tested in place of the tree (`make test SINGLETON_RUN=FILE`), which can't.

Such a file has a Python of its own or none: nothing can be imported into it or out of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# Modules and folders below tests/ whose tests start singleton-run and judge it from outside.
PARTS = (
    "backends/conformance/test_etcd.py::TestCommand",
    "backends/conformance/test_file.py::TestCommand",
    "backends/conformance/test_k8s.py::TestCommand",
    "backends/conformance/test_postgres.py::TestCommand",
    "backends/conformance/test_redis.py::TestCommand",
    "backends/conformance/test_redis.py::TestQuorumCommand",
    "backends/postgres/test_command.py",
    "backends/test_doctor.py",
    "backends/test_status.py",
    "backends/test_steering_commands.py",
    "images/",
    "process/",
    "project/test_completions.py",
    "project/test_demo.py",
    "slots/",
)
_PYTHON = "it makes a Python lack something or fail, by sitecustomize"
_STRANGER = "it makes a stranger's backend fail, and a file loads none"
_INSIDE = "it calls functions in its own Python"
_CLOCK = "libfaketime is loaded by a dynamic linker, and the file has none"
_ETCD = "with etcd a waiter's place stays for its lease when its keeper is killed (docs/promises.md)"
_MUSL = "musl does without that call"
_GRPC = "python-etcd3 is in no file"
_METRICS = "prometheus-client is in no file"
# A test, or all of a module, and why it can't say anything of a file.
UNFIT = {
    "backends/test_doctor.py::test_a_clock_of_ours_that_is_wrong": _CLOCK,
    "backends/test_doctor.py::test_a_stranger_s_lock_is_looked_at_as_far_as_the_contract_goes": _STRANGER,
    "process/test_bad_input.py::test_a_command_that_is_none_is_not_found": _INSIDE,
    "process/test_bad_input.py::test_a_directory_is_understood_or_refused": _INSIDE,
    "process/test_bad_input.py::test_a_duration_is_a_number_of_seconds_or_a_sentence": _INSIDE,
    "process/test_bad_input.py::test_a_url_is_understood_or_refused_and_nobody_is_contacted": _INSIDE,
    "process/test_bad_input.py::test_a_variable_is_understood_or_refused": _INSIDE,
    "process/test_bad_input.py::test_a_variable_of_etcdctl_is_understood_or_refused": _INSIDE,
    "process/test_bad_input.py::test_a_variable_of_libpq_is_understood_or_refused": _INSIDE,
    "process/test_bad_input.py::test_an_option_s_value_is_understood_or_refused": _INSIDE,
    "process/test_bad_input.py::test_words_that_are_no_options_are_refused": _INSIDE,
    "process/test_command_line.py::test_after_the_dashes_nothing_is_looked_at": _INSIDE,
    "process/test_crontab_of_debian.py": _INSIDE,
    "process/test_deaths.py::test_over_the_length_of_a_lease": _STRANGER,
    "process/test_deaths.py::test_when_the_keeper_is_killed_while_it_waits_another_waits_on": _ETCD,
    "process/test_crontab.py::test_a_reporter_of_the_parent_that_is_killed_is_replaced": _METRICS,
    "process/test_crontab.py::test_the_parent_tells_of_all_lines": _METRICS,
    "process/test_exit_status.py::test_69_when_the_backend_breaks": _STRANGER,
    "process/test_exit_status.py::test_69_when_the_server_can_not_be_reached": _STRANGER,
    "process/test_exit_status.py::test_77_when_the_server_refuses": _STRANGER,
    "process/test_exit_status.py::test_78_on_windows_too": _INSIDE,
    "process/test_exit_status.py::test_78_where_there_is_no_linux_and_the_docs_say_how": _INSIDE,
    "process/test_exit_status.py::test_a_server_that_comes_back_within_the_wait_is_enough": _STRANGER,
    "process/test_exit_status.py::test_as_process_1_an_interrupted_command_is_told_by_number": _INSIDE,
    "process/test_exit_status.py::test_a_call_under_another_leaves_nothing_behind": _PYTHON,
    "process/test_logging.py::test_a_writer_that_gets_no_processor_is_waited_for": _PYTHON,
    "process/test_dead_guards.py": _PYTHON,
    "process/test_logging.py::test_errors_are_said_though_quiet": _STRANGER,
    "process/test_metrics_page.py": _METRICS,
    "process/test_reporter.py": _METRICS,
    "process/test_own_faults.py::test_a_fault_of_the_front_ends_the_command_before": _PYTHON,
    "process/test_own_faults.py::test_a_fault_of_the_front_is_one_line_and_78": _PYTHON,
    "process/test_own_faults.py::test_a_guard_that_fails_before_each_start_is_given_up": _PYTHON,
    "process/test_own_faults.py::test_a_keeper_that_fails_before_each_grant_is_given_up": _PYTHON,
    "process/test_own_faults.py::test_a_lack_of_memory_is_no_fault_of_ours": _PYTHON,
    "process/test_poor_systems.py::test_an_os_module_that_lacks_something_does": _PYTHON,
    "process/test_poor_systems.py::test_a_kernel_that_refuses_what_is_needed_is_named_in_one_line"
    "[file-signalfd4-ENOSYS]": _MUSL,
    "process/test_poor_systems.py::test_a_kernel_that_refuses_what_is_needed_is_named_in_one_line"
    "[leasefile-signalfd4-ENOSYS]": _MUSL,
    "process/test_poor_systems.py::test_a_python_that_lacks_a_module_does_or_names_it_in_one_line": _PYTHON,
    "process/test_poor_systems.py::test_every_call_of_the_table_can_be_refused": _INSIDE,
    "process/test_scarcity.py::test_a_loop_goes_on_after_a_time_in_which_no_process_could_be_forked": _PYTHON,
    "process/test_scarcity.py::test_the_children_are_known_when_nothing_can_be_opened_any_more": _INSIDE,
    "process/test_security.py::test_a_legal_name_is_one_plain_word_everywhere": _INSIDE,
    "process/test_security.py::test_a_line_of_http_can_not_be_broken": _INSIDE,
    "process/test_security.py::test_an_identifier_of_sql_ends_where_it_ends": _INSIDE,
    "process/test_security.py::test_so_is_the_name_that_is_made_of_a_command": _INSIDE,
    "process/test_security.py::test_two_names_have_nothing_in_common_below_a_prefix": _INSIDE,
    "process/test_waiting.py::test_a_signal_while_the_server_is_stuck_ends_the_wait": _STRANGER,
    "process/test_waiting.py::test_a_log_that_was_closed_without_a_writer_reminds_of_no_wait": _INSIDE,
    "process/test_waiting.py::test_a_writer_that_fails_in_a_wait_does_not_end_the_call": _PYTHON,
    "process/test_waiting.py::test_what_is_said_during_the_wait_is_not_written_over": _STRANGER,
    "process/test_waiting.py::test_whoever_could_not_say_that_they_wait_says_it_once_they_can": _INSIDE,
    "process/test_waiting.py::test_whoever_waits_is_reminded_of_it": _PYTHON,
    "slots/test_clocks.py": _CLOCK,
    "process/test_trace.py::test_a_terminal_that_hangs_keeps_no_renewal_waiting_and_what_is_lost"
    "_is_said": _STRANGER,
    "process/test_trace.py::test_of_trouble_a_refusal_a_loss_and_a_failed_start_too": _STRANGER,
}
# The same for a parameter, in whichever test.
UNFIT_PARAMETERS = {"etcd+grpc": _GRPC, "queuefile": _STRANGER}


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what says something of a file."""
    fit = [item for item in items if is_fit(name_of(item))]
    config.hook.pytest_deselected(items=[item for item in items if item not in fit])
    items[:] = fit


def name_of(item: pytest.Item) -> str:
    """A test as the tables name it: PATH::NAME[PARAMETERS], the path from tests/ on."""
    return item.nodeid.removeprefix("tests/")


def is_fit(name: str) -> bool:
    """Whether a test is one of the parts, and in neither table."""
    return name.startswith(PARTS) and not any(matches(entry, name) for entry in (*UNFIT, *UNFIT_PARAMETERS))


def matches(entry: str, name: str) -> bool:
    """Whether an entry of one of the tables means this test."""
    test, _, parameters = name.partition("[")
    if "::" not in entry and "/" not in entry:
        return f"-{entry}-" in f"-{parameters.removesuffix(']')}-"
    return entry in (name, test, test.partition("::")[0])
