package main

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CreateSnapshot cuts a snapshot: the copy is whole when it answers. When it may be used is a matter of knobs.
func (d *driver) CreateSnapshot(ctx context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if request.Name == "" || request.SourceVolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "no name, or no volume is named")
	}
	if err := d.knobs.admits(request.Secrets); err != nil {
		return nil, err
	}
	id := identity(request.Name)
	if err := d.knobs.wait(ctx, "hold-cut"); err != nil {
		return nil, err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	standing, err := d.snapshots.get(id)
	if err != nil {
		return nil, err
	}
	if standing != nil {
		if standing.Volume != request.SourceVolumeId {
			return nil, status.Errorf(codes.AlreadyExists, "%s is there, of the volume %s", request.Name, standing.Volume)
		}
		if err := d.refresh(standing); err != nil {
			return nil, err
		}
		return &csi.CreateSnapshotResponse{Snapshot: standing.shown()}, nil
	}
	source, err := d.volumes.need(request.SourceVolumeId)
	if err != nil {
		return nil, err
	}
	if err := d.knobs.failure("fail-cut"); err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	cut := &snapshot{
		ID: id, Name: request.Name, Volume: source.ID, Capacity: source.Capacity,
		Cut: now, ReadyAt: now.Add(d.knobs.seconds("ready-after")),
	}
	if err := d.snapshots.make(ctx, id, cut, d.volumes.data(source.ID)); err != nil {
		return nil, err
	}
	if err := d.refresh(cut); err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: cut.shown()}, nil
}

// refresh makes one ready whose time has come: it stays so.
func (d *driver) refresh(cut *snapshot) error {
	if cut.Ready {
		return nil
	}
	if err := d.knobs.failure("fail-ready"); err != nil {
		return err
	}
	if _, isHeld := d.knobs.text("hold-ready"); isHeld || time.Now().Before(cut.ReadyAt) {
		return nil
	}
	cut.Ready = true
	return d.snapshots.put(cut.ID, cut)
}

func (s *snapshot) shown() *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: s.ID, SourceVolumeId: s.Volume, SizeBytes: s.Capacity,
		CreationTime: timestamppb.New(s.Cut), ReadyToUse: s.Ready,
	}
}

func (d *driver) DeleteSnapshot(_ context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if request.SnapshotId == "" {
		return nil, status.Error(codes.InvalidArgument, "no snapshot is named")
	}
	if err := d.knobs.admits(request.Secrets); err != nil {
		return nil, err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	if err := d.knobs.failure("fail-delete"); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, d.snapshots.remove(request.SnapshotId)
}

func (d *driver) ListSnapshots(_ context.Context, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	isAsked := func(cut *snapshot) bool {
		return (request.SnapshotId == "" || request.SnapshotId == cut.ID) && (request.SourceVolumeId == "" || request.SourceVolumeId == cut.Volume)
	}
	found, next, err := d.snapshots.page(request.StartingToken, request.MaxEntries, isAsked)
	if err != nil {
		return nil, err
	}
	response := &csi.ListSnapshotsResponse{NextToken: next}
	for _, cut := range found {
		if err := d.refresh(cut); err != nil {
			return nil, err
		}
		response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: cut.shown()})
	}
	return response, nil
}
