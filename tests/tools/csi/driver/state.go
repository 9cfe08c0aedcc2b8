package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// volume is what is known of a volume: STATE/volumes/ID/about.json, beside its files in STATE/volumes/ID/data.
type volume struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Capacity int64  `json:"capacity"`
	// What its first content came from, if it came from anything.
	Snapshot string `json:"snapshot,omitempty"`
}

// snapshot is what is known of a snapshot, in STATE/snapshots in the same way. It needs its volume no longer.
type snapshot struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Volume   string    `json:"volume"`
	Capacity int64     `json:"capacity"`
	Cut      time.Time `json:"cut"`
	ReadyAt  time.Time `json:"readyAt"`
	Ready    bool      `json:"ready"`
}

// shelf keeps one kind of thing, a folder each. What is being made or taken away has a dot in its name, and is no thing.
type shelf[T any] struct{ folder string }

// identity makes an identifier of the caller's name for a thing: asked again for the same name, it is the same thing.
func identity(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

// isIdentity keeps anything else out of paths.
func isIdentity(id string) bool {
	decoded, err := hex.DecodeString(id)
	return err == nil && len(decoded) == 16
}

// open clears away what a process before did not finish.
func (s shelf[T]) open() error {
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.folder)
	for _, entry := range entries {
		if strings.Contains(entry.Name(), ".") {
			err = errors.Join(err, os.RemoveAll(path.Join(s.folder, entry.Name())))
		}
	}
	return err
}

func (s shelf[T]) data(id string) string { return path.Join(s.folder, id, "data") }

// get returns nothing for what is not there.
func (s shelf[T]) get(id string) (*T, error) {
	if !isIdentity(id) {
		return nil, nil
	}
	text, err := os.ReadFile(path.Join(s.folder, id, "about.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	about := new(T)
	if err == nil {
		err = json.Unmarshal(text, about)
	}
	return about, err
}

// need is get for whom it has to be there.
func (s shelf[T]) need(id string) (*T, error) {
	about, err := s.get(id)
	if err == nil && about == nil {
		err = status.Errorf(codes.NotFound, "%s has no %q", path.Base(s.folder), id)
	}
	return about, err
}

// make adds a thing whose files are a copy of a folder, with all that files have, or none: a folder for everybody.
func (s shelf[T]) make(ctx context.Context, id string, about *T, from string) error {
	unfinished := path.Join(s.folder, id+".new")
	if err := errors.Join(os.RemoveAll(unfinished), os.Mkdir(unfinished, 0o755)); err != nil {
		return err
	}
	data := path.Join(unfinished, "data")
	if from == "" {
		if err := errors.Join(os.Mkdir(data, 0o777), os.Chmod(data, 0o777)); err != nil {
			return err
		}
	} else if said, err := exec.CommandContext(ctx, "cp", "--archive", "--reflink=auto", from, data).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, said)
	}
	if err := write(unfinished, about); err != nil {
		return err
	}
	return os.Rename(unfinished, path.Join(s.folder, id))
}

// put changes what is known of a thing that is there.
func (s shelf[T]) put(id string, about *T) error { return write(path.Join(s.folder, id), about) }

func write(folder string, about any) error {
	text, err := json.Marshal(about)
	if err != nil {
		return err
	}
	unfinished := path.Join(folder, "about.new")
	if err := os.WriteFile(unfinished, text, 0o644); err != nil {
		return err
	}
	return os.Rename(unfinished, path.Join(folder, "about.json"))
}

// remove takes a thing away; what is not there is no error.
func (s shelf[T]) remove(id string) error {
	if !isIdentity(id) {
		return nil
	}
	gone := path.Join(s.folder, id+".gone")
	if err := os.Rename(path.Join(s.folder, id), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// page lists the things that are asked for, in the order of their identifiers; a token is the last one before.
func (s shelf[T]) page(token string, most int32, isAsked func(*T) bool) (found []*T, next string, err error) {
	if token != "" && !isIdentity(token) {
		return nil, "", status.Errorf(codes.Aborted, "%q is no token of this driver: list from the beginning", token)
	}
	entries, err := os.ReadDir(s.folder)
	last := token
	for _, entry := range entries {
		about, failed := s.get(entry.Name())
		if err = errors.Join(err, failed); about == nil || entry.Name() <= token || !isAsked(about) {
			continue
		}
		if most > 0 && len(found) == int(most) {
			return found, last, err
		}
		found, last = append(found, about), entry.Name()
	}
	return found, "", err
}
