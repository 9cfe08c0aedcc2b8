package main

import (
	"cmp"
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The capacity of a volume that nobody wanted one of: it is a number, and limits nothing.
const someCapacity = 1 << 30

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	response := &csi.ControllerGetCapabilitiesResponse{}
	for _, capability := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		rpc := &csi.ControllerServiceCapability_RPC{Type: capability}
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: rpc}})
	}
	return response, nil
}

// checkCapabilities refuses what a folder can not be.
func checkCapabilities(capabilities ...*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return status.Error(codes.InvalidArgument, "no capability of the volume is named")
	}
	for _, capability := range capabilities {
		if capability.GetMount() == nil {
			return status.Error(codes.InvalidArgument, "volumes of this driver are mounted: they are no block devices")
		}
	}
	return nil
}

func (d *driver) CreateVolume(ctx context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if request.Name == "" {
		return nil, status.Error(codes.InvalidArgument, "no name")
	}
	if err := checkCapabilities(request.VolumeCapabilities...); err != nil {
		return nil, err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	wanted := &volume{ID: identity(request.Name), Name: request.Name, Snapshot: request.VolumeContentSource.GetSnapshot().GetSnapshotId()}
	least, most := request.CapacityRange.GetRequiredBytes(), request.CapacityRange.GetLimitBytes()
	standing, err := d.volumes.get(wanted.ID)
	if err != nil {
		return nil, err
	}
	if standing != nil {
		if standing.Capacity < least || most > 0 && standing.Capacity > most || standing.Snapshot != wanted.Snapshot {
			return nil, status.Errorf(codes.AlreadyExists, "%s is there, with another capacity or content", request.Name)
		}
		return &csi.CreateVolumeResponse{Volume: standing.shown()}, nil
	}
	from, held := "", int64(0)
	if wanted.Snapshot != "" {
		if from, held, err = d.content(wanted.Snapshot); err != nil {
			return nil, err
		}
	}
	if least > 0 && least < held || most > 0 && most < max(least, held) {
		return nil, status.Errorf(codes.OutOfRange, "%d to %d bytes are no capacity for %d", least, most, held)
	}
	if wanted.Capacity = max(least, held); wanted.Capacity == 0 {
		wanted.Capacity = cmp.Or(most, someCapacity)
	}
	if err := d.volumes.make(ctx, wanted.ID, wanted, from); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: wanted.shown()}, nil
}

// content is the folder that a new volume is to begin as a copy of, and how large its source was.
func (d *driver) content(id string) (string, int64, error) {
	source, err := d.snapshots.need(id)
	if err == nil {
		err = d.refresh(source)
	}
	if err != nil {
		return "", 0, err
	}
	if !source.Ready {
		return "", 0, status.Errorf(codes.Unavailable, "the snapshot %s is not ready", id)
	}
	return d.snapshots.data(id), source.Capacity, d.knobs.failure("fail-restore")
}

func (v *volume) shown() *csi.Volume {
	shown := &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Capacity}
	if v.Snapshot != "" {
		source := &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.Snapshot}
		shown.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: source}}
	}
	return shown
}

func (d *driver) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if request.VolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "no volume is named")
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	targets, err := published(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if len(targets) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is published at %v", request.VolumeId, targets)
	}
	return &csi.DeleteVolumeResponse{}, d.volumes.remove(request.VolumeId)
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if request.VolumeId == "" || len(request.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "no volume is named, or no capability")
	}
	if _, err := d.volumes.need(request.VolumeId); err != nil {
		return nil, err
	}
	if err := checkCapabilities(request.VolumeCapabilities...); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	confirmed := &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.VolumeCapabilities}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: confirmed}, nil
}

func (d *driver) ListVolumes(_ context.Context, request *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	found, next, err := d.volumes.page(request.StartingToken, request.MaxEntries, func(*volume) bool { return true })
	if err != nil {
		return nil, err
	}
	response := &csi.ListVolumesResponse{NextToken: next}
	for _, volume := range found {
		response.Entries = append(response.Entries, &csi.ListVolumesResponse_Entry{Volume: volume.shown()})
	}
	return response, nil
}
