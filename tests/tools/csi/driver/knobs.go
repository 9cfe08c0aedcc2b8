package main

import (
	"context"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// knobs is a folder of files by which a test says how the driver is to misbehave; what is not there does nothing.
//
//	hold-cut       CreateSnapshot copies nothing while the file is there: it waits as long as the caller does
//	fail-cut       CreateSnapshot of a snapshot that is not there yet fails, with the file's text
//	ready-after    snapshots that are cut now are ready after so many seconds
//	hold-ready     snapshots are cut, but none gets ready while the file is there
//	fail-ready     asking for one that is cut and not ready fails, with the file's text
//	fail-delete    DeleteSnapshot fails, with the file's text
//	fail-restore   CreateVolume from a snapshot fails, with the file's text
//	need-secret    a snapshot is cut and deleted only with a Secret whose `password` is the file's text
type knobs string

// text is what a file says, and whether it is there.
func (k knobs) text(name string) (string, bool) {
	text, err := os.ReadFile(path.Join(string(k), name))
	return strings.TrimSpace(string(text)), err == nil
}

// failure is what a file that is there makes of a call.
func (k knobs) failure(name string) error {
	if text, set := k.text(name); set {
		return status.Error(codes.Internal, text)
	}
	return nil
}

// admits refuses a call without the Secret that a file asks for.
func (k knobs) admits(secrets map[string]string) error {
	if password, set := k.text("need-secret"); set && secrets["password"] != password {
		return status.Error(codes.Unauthenticated, "no Secret came along, or a wrong one")
	}
	return nil
}

// wait returns when a file is not there any more, or when the caller has given up.
func (k knobs) wait(ctx context.Context, name string) error {
	for {
		if _, set := k.text(name); !set {
			return nil
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// seconds is the number in a file, or none.
func (k knobs) seconds(name string) time.Duration {
	text, _ := k.text(name)
	seconds, _ := strconv.ParseFloat(text, 64)
	return time.Duration(seconds * float64(time.Second))
}
