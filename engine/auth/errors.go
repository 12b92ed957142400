package auth

import "errors"

// The texts are etcd's; clients match them.
var (
	ErrRootUserNotExist     = errors.New("etcdserver: root user does not exist")
	ErrRootRoleNotExist     = errors.New("etcdserver: root user does not have root role")
	ErrUserAlreadyExist     = errors.New("etcdserver: user name already exists")
	ErrUserEmpty            = errors.New("etcdserver: user name is empty")
	ErrUserNotFound         = errors.New("etcdserver: user name not found")
	ErrRoleAlreadyExist     = errors.New("etcdserver: role name already exists")
	ErrRoleNotFound         = errors.New("etcdserver: role name not found")
	ErrRoleEmpty            = errors.New("etcdserver: role name is empty")
	ErrAuthFailed           = errors.New("etcdserver: authentication failed, invalid user ID or password")
	ErrPermissionNotGiven   = errors.New("etcdserver: permission not given")
	ErrPermissionDenied     = errors.New("etcdserver: permission denied")
	ErrRoleNotGranted       = errors.New("etcdserver: role is not granted to the user")
	ErrPermissionNotGranted = errors.New("etcdserver: permission is not granted to the role")
	ErrNotEnabled           = errors.New("etcdserver: authentication is not enabled")
	ErrInvalidManagement    = errors.New("etcdserver: invalid auth management")
	ErrOldRevision          = errors.New("etcdserver: revision of auth store is old")
	// ErrNoPasswordUser is one of those that etcd has no status for and sends
	// in its internal words.
	ErrNoPasswordUser = errors.New("auth: authentication failed, password was given for no password user")
)
