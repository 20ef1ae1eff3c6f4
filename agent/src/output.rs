//! The runner's output: copied to the agent's own, which the image shows on the machine's console, and its end kept.

use std::collections::VecDeque;
use std::io::{ErrorKind, PipeReader, Write};

use anyhow::Context;
use tokio::net::unix::pipe::Receiver;

/// How many bytes are copied at a time: as many as a pipe holds. A job could write for ever.
const COPIED_BYTES: usize = 65_536;

/// How many bytes of the output are kept.
const KEPT_BYTES: usize = 4096;

/// How many lines are shown, and how many characters of each.
const SHOWN_LINES: usize = 5;
const SHOWN_CHARACTERS: usize = 200;

/// The runner's standard output and error.
pub(crate) struct Output<W> {
    pipe: Option<Receiver>,
    copied_to: W,
    end: VecDeque<u8>,
}

impl<W: Write> Output<W> {
    pub(crate) fn of(pipe: PipeReader, copied_to: W) -> anyhow::Result<Self> {
        let pipe = Receiver::from_owned_fd(pipe.into()).context("cannot read the runner's output")?;
        Ok(Self { pipe: Some(pipe), copied_to, end: VecDeque::new() })
    }

    /// Waits for output and copies a part of it. After its end, waits for ever. Can be cancelled.
    pub(crate) async fn copy_some(&mut self) {
        let Some(pipe) = &self.pipe else { return std::future::pending().await };
        if pipe.readable().await.is_err() {
            self.pipe = None;
        }
        self.copy_available();
    }

    /// The last lines, after everything that the runner wrote until now.
    ///
    /// The output may never end, because a process that the job left running can keep it open and write to it.
    pub(crate) fn last_lines(&mut self) -> String {
        self.copy_available();
        let text = String::from_utf8_lossy(self.end.make_contiguous());
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let shown = lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES));
        shown.map(|line| line.chars().take(SHOWN_CHARACTERS).collect::<String>()).collect::<Vec<_>>().join(" | ")
    }

    fn copy_available(&mut self) {
        let mut some = [0; 4096];
        for _ in 0..COPIED_BYTES / some.len() {
            let Some(pipe) = &self.pipe else { return };
            match pipe.try_read(&mut some) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    // A console that cannot be written to must not keep the machine from its job.
                    let _ = self.copied_to.write_all(&some[..length]);
                    self.end.extend(&some[..length]);
                    self.end.drain(..self.end.len().saturating_sub(KEPT_BYTES));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::fcntl::{FcntlArg, fcntl};

    use super::{COPIED_BYTES, Output};

    #[tokio::test]
    async fn output_is_copied_in_parts_whether_more_of_it_waits_or_not() {
        let (read, mut write) = std::io::pipe().unwrap();
        fcntl(&write, FcntlArg::F_SETPIPE_SZ((4 * COPIED_BYTES).try_into().unwrap())).unwrap();
        write.write_all(&vec![b'x'; 4 * COPIED_BYTES]).unwrap();
        let mut output = Output::of(read, Vec::new()).unwrap();
        output.copy_some().await;
        assert_eq!(output.copied_to.len(), COPIED_BYTES);
        output.last_lines();
        assert_eq!(output.copied_to.len(), 2 * COPIED_BYTES, "the process that wrote it may go on for ever");
        drop(write);
        while output.pipe.is_some() {
            output.copy_some().await;
        }
        assert_eq!(output.copied_to.len(), 4 * COPIED_BYTES);
    }
}
