//! A program on a pseudo terminal: keys go in, what it shows is waited for.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pty_process::blocking::{Command as PtyCommand, open};
use rustix::process::{Pid, Signal, kill_process};

/// A running program and what it has shown.
pub struct Terminal {
    child: Child,
    keyboard: fs::File,
    pieces: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    /// Starts it on a terminal of this many lines and columns.
    pub fn start(command: Command, lines: u16, columns: u16) -> Self {
        let (pty, pts) = open().expect("a pseudo terminal");
        pty.resize(pty_process::Size::new(lines, columns)).expect("a size");
        let child = PtyCommand::from(command).spawn(pts).expect("the program starts");
        let mut screen = fs::File::from(std::os::fd::OwnedFd::from(pty));
        let keyboard = screen.try_clone().expect("a handle");
        let (sender, pieces) = mpsc::channel();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            // The read fails once the child has closed its side.
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard, pieces, shown: String::new() }
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    pub fn type_line(&mut self, line: &str) {
        self.type_keys(&format!("{line}\r"));
    }

    /// Waits until the screen has shown this since the last wait; returns what came until then.
    pub fn wait_for(&mut self, expected: &str) -> String {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(at) = self.shown.find(expected) {
                let rest = self.shown.split_off(at + expected.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            match self.next_piece(deadline) {
                Ok(()) => {}
                Err(error) => panic!("'{expected}' is not shown ({error}), but: {:?}", self.shown),
            }
        }
    }

    /// Waits for the end: everything shown since the last wait, and the exit status.
    pub fn end(mut self) -> (String, Option<i32>) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.next_piece(deadline) != Err(RecvTimeoutError::Disconnected) {
            assert!(Instant::now() < deadline, "the program goes on: {:?}", self.shown);
        }
        let status = self.child.wait().expect("an end");
        (std::mem::take(&mut self.shown), status.code())
    }

    /// A handle to the terminal, by which its modes can be asked for.
    pub fn handle(&self) -> fs::File {
        self.keyboard.try_clone().expect("a handle")
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    fn next_piece(&mut self, deadline: Instant) -> Result<(), RecvTimeoutError> {
        let piece = self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        self.shown.push_str(&String::from_utf8_lossy(&piece));
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed leaves no shell behind; one that ended is waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
