package rpc

func (s *Server) registerMetrics() error { return nil }
