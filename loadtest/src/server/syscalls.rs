//! How many system calls a process makes: what batching is for. Counted by `perf`, which costs the process next to nothing,
//! else by `strace`, which slows it down.

use std::process::{Command, Stdio};
use std::time::Duration;

/// Counts for `time`. The error says what is missing.
pub fn count(pid: u32, time: Duration) -> Result<u64, String> {
    let (pid, seconds) = (pid.to_string(), format!("{:.3}", time.as_secs_f64()));
    let perf = ["stat", "-e", "raw_syscalls:sys_enter", "-x", ",", "-p", &pid, "--", "sleep", &seconds];
    let by_perf = output("perf", &perf).and_then(|text| perf_count(&text).ok_or(format!("perf says: {}", text.trim())));
    let Err(perf_failed) = by_perf else { return by_perf };
    let strace = [&seconds, "strace", "-c", "-f", "-p", &pid];
    // Interrupted, strace writes its table.
    let by_strace = output("timeout", &[&["-s", "INT"], &strace[..]].concat());
    by_strace
        .and_then(|text| strace_count(&text).ok_or(format!("strace says: {}", text.trim())))
        .map_err(|strace_failed| format!("neither perf ({perf_failed}) nor strace ({strace_failed}) can count"))
}

/// What a program writes to stderr.
fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).output();
    let output = ran.map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `12345,,raw_syscalls:sys_enter,…`
fn perf_count(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?.split(',').next()?.parse().ok()
}

/// `100.00    0.123456           3     12345       678 total`
fn strace_count(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_are_understood() {
        assert_eq!(perf_count("4711,,raw_syscalls:sys_enter,2000154,100.00,,\n"), Some(4711));
        assert_eq!(perf_count("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        let table = "strace: Process 7 attached\n% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.001234           1      1234         5 total\n";
        assert_eq!(strace_count(table), Some(1234));
        assert_eq!(strace_count("strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted"), None);
    }
}
