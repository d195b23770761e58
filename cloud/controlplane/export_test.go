package controlplane

// KillStore ends etcd under the server.
func (s *Server) KillStore() { s.store.Server.HardStop() }
