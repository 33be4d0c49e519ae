//! Another program, measured in turn.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::context::Context;
use crate::error::{Code, Error, Result};

/// How often a running command looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of its output that are quoted when it fails.
const QUOTED: usize = 3;

/// The expression that finds tokens per second; it has a group.
pub fn pattern(text: &str) -> Result<Regex> {
    let pattern = Regex::new(text).map_err(|error| {
        Error::new(Code::InvalidRequest, format!("--against-pattern is no regular expression: {error}"))
            .hint("see https://docs.rs/regex/#syntax")
    })?;
    if pattern.captures_len() < 2 {
        return Err(Error::new(Code::InvalidRequest, format!("--against-pattern '{text}' has no group"))
            .hint("put the number in parentheses, as in 'speed: ([0-9.]+)'"));
    }
    Ok(pattern)
}

/// Ends all that the command has started, which is a process group of its own.
fn end_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Nobody is left where it has ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Runs the command once and reads tokens per second from what it prints.
///
/// # Errors
/// SERVER_CRASHED if it fails, INVALID_REQUEST if it cannot start or prints no such number.
pub fn measure(command: &str, pattern: &Regex, context: &Context) -> Result<f64> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| Error::new(Code::InvalidRequest, format!("cannot start '{command}': {error}")))?;
    let text = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before a failure is still worth a look.
            let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = text(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = text(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let fail = |error| Error::new(Code::IoError, format!("cannot wait for '{command}': {error}"));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(fail)? {
            break status;
        }
        if let Err(stopped) = context.cancel.check() {
            end_group(&child);
            let _ = child.wait();
            return Err(stopped);
        }
        thread::sleep(LOOK);
    };
    // What it left running would disturb what is measured next, and keep its output open.
    end_group(&child);
    let output = [stdout, stderr].map(|reader| reader.join().unwrap_or_default()).join("\n");
    let end: Vec<&str> = output.lines().rev().filter(|line| !line.trim().is_empty()).take(QUOTED).collect();
    let end = end.into_iter().rev().collect::<Vec<_>>().join(" | ");
    if !status.success() {
        return Err(Error::new(Code::ServerCrashed, format!("'{command}' failed ({status}): {end}"))
            .detail("command", command)
            .hint("try the command by itself first"));
    }
    pattern
        .captures_iter(&output)
        .filter_map(|found| found.get(1)?.as_str().parse::<f64>().ok())
        .filter(|speed| speed.is_finite() && *speed > 0.0)
        .last()
        .ok_or_else(|| {
            Error::new(
                Code::InvalidRequest,
                format!("'{command}' printed no tokens per second as /{pattern}/ reads them: {end}"),
            )
            .detail("command", command)
            .hint("tell where the number is with --against-pattern, such as 'speed: ([0-9.]+)'")
        })
}
