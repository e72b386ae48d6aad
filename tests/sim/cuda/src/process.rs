//! Ways in which a program that uses CUDA ends, or goes on twice, that Rust has no safe words for.
#![expect(unsafe_code, reason = "fork and _exit")]

use std::io;

/// Forks. The child does `work` and ends with the exit handlers of the process, as a script's `os.fork()` does; the answer
/// is how it ended: its exit code, or `None` for a signal.
///
/// # Errors
/// When there is no more room for processes.
pub fn fork_child(work: impl FnOnce()) -> io::Result<Option<i32>> {
    // SAFETY: the child shares nothing but copies; what it may find locked for ever is what programs that fork find too.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        // A panic must not go on in the caller, whose program the child is not.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            exit_hard(101);
        }
        // SAFETY: ends the child, with its exit handlers.
        unsafe { libc::exit(0) };
    }
    let mut status = 0;
    loop {
        // SAFETY: a child of this process, and a writable place.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Ok(libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Ends at once, without exit handlers, as `os._exit()` does.
pub fn exit_hard(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}
