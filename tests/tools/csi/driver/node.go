package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	rpc := &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER}
	capability := &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: rpc}}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{capability}}, nil
}

// NodePublishVolume binds a volume's folder to a target.
func (d *driver) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if request.VolumeId == "" || request.TargetPath == "" {
		return nil, status.Error(codes.InvalidArgument, "no volume is named, or no target")
	}
	if request.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "no capability of the volume is named")
	}
	if err := checkCapabilities(request.VolumeCapability); err != nil {
		return nil, err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	standing, err := d.volumes.need(request.VolumeId)
	if err != nil {
		return nil, err
	}
	targets, err := published(standing.ID)
	if err != nil {
		return nil, err
	}
	if slices.Contains(targets, request.TargetPath) {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	isSingle := request.VolumeCapability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	if isSingle && len(targets) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is for one writer, and is published at %v", standing.ID, targets)
	}
	return &csi.NodePublishVolumeResponse{}, bind(d.volumes.data(standing.ID), request.TargetPath, request.Readonly)
}

func bind(folder, target string, isReadonly bool) error {
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syscall.Mount(folder, target, "", syscall.MS_BIND, ""); err != nil || !isReadonly {
		return err
	}
	return syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
}

// NodeUnpublishVolume takes a target away, and leaves a folder alone that anything is left in.
func (d *driver) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if request.VolumeId == "" || request.TargetPath == "" {
		return nil, status.Error(codes.InvalidArgument, "no volume is named, or no target")
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	targets, err := published(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if slices.Contains(targets, request.TargetPath) {
		if err := syscall.Unmount(request.TargetPath, 0); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(request.TargetPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// published returns where a volume's folder is mounted, as this process' namespace has it. The names hold nothing that the kernel escapes.
func published(id string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	var targets []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasSuffix(fields[3], "/"+id+"/data") {
			targets = append(targets, fields[4])
		}
	}
	return targets, err
}
