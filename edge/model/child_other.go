//go:build unix && !linux

package model

import "syscall"

// childAttributes give a child a process group of its own, to be killed as one.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
