package camera

import (
	"os/exec"
	"syscall"
)

// ownGroup puts a child into a process group of its own; it dies with the thread
// that has started it, and so with us.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// signalGroup signals all that cmd has started and not ended.
func signalGroup(cmd *exec.Cmd, sig syscall.Signal) error {
	return syscall.Kill(-cmd.Process.Pid, sig)
}
