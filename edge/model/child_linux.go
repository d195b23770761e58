package model

import "syscall"

// childAttributes give a child a process group of its own, to be killed as one,
// and have the kernel kill it when we die.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
