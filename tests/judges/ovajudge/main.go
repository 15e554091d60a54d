// Imports an OVA into a simulated vCenter by VMware's own library, as `govc import.ova` does, and prints the
// virtual machine that came of it as JSON. Exit code 1 when the import is refused.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/ovf/importer"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type machine struct {
	Name       string   `json:"name"`
	Guest      string   `json:"guest"`
	Version    string   `json:"version"`
	Firmware   string   `json:"firmware"`
	CPUs       int32    `json:"cpus"`
	MemoryMiB  int32    `json:"memory_mib"`
	Devices    []string `json:"devices"`
	DiskBytes  []int64  `json:"disk_bytes"`
	Properties []string `json:"properties"`
	Networks   []string `json:"networks"`
	Log        []string `json:"log"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	var failure error
	simulator.Test(func(ctx context.Context, client *vim25.Client) {
		failure = load(ctx, client, path)
	})
	return failure
}

func load(ctx context.Context, client *vim25.Client, path string) error {
	finder := find.NewFinder(client)
	out := machine{}
	imp := importer.Importer{
		Log:     func(text string) (int, error) { out.Log = append(out.Log, text); return len(text), nil },
		Client:  client,
		Finder:  finder,
		Archive: &importer.TapeArchive{Path: path, Opener: importer.Opener{Client: client}},
	}
	if err := findPlaces(ctx, finder, &imp); err != nil {
		return err
	}
	spec, err := importer.Spec("*.ovf", imp.Archive, false, false)
	if err != nil {
		return err
	}
	for _, property := range spec.PropertyMapping {
		out.Properties = append(out.Properties, property.Key)
	}
	for i, network := range spec.NetworkMapping {
		out.Networks = append(out.Networks, network.Name)
		spec.NetworkMapping[i].Network = "VM Network"
	}
	if err := checkManifest(&imp); err != nil {
		return err
	}
	entity, err := imp.Import(ctx, "*.ovf", *spec)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return describe(ctx, object.NewVirtualMachine(client, *entity), &out)
}

// checkManifest does what a real vCenter does with VerifyManifest; the simulated one computes no sums.
func checkManifest(imp *importer.Importer) error {
	if err := imp.ReadManifest("*.ovf"); err != nil {
		return err
	}
	for name, sum := range imp.Manifest {
		file, _, err := imp.Archive.Open(name)
		if err != nil {
			return err
		}
		digest := sha256.New()
		_, err = io.Copy(digest, file)
		file.Close()
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(digest.Sum(nil)); sum.Algorithm != "SHA256" || got != sum.Checksum {
			return fmt.Errorf("%s: the manifest says %s %s, it is %s", name, sum.Algorithm, sum.Checksum, got)
		}
	}
	if len(imp.Manifest) != 2 {
		return fmt.Errorf("the manifest has %d entries", len(imp.Manifest))
	}
	return nil
}

func findPlaces(ctx context.Context, finder *find.Finder, imp *importer.Importer) error {
	var err error
	if imp.Datacenter, err = finder.DefaultDatacenter(ctx); err != nil {
		return err
	}
	finder.SetDatacenter(imp.Datacenter)
	if imp.Datastore, err = finder.DefaultDatastore(ctx); err != nil {
		return err
	}
	hosts, err := finder.HostSystemList(ctx, "*")
	if err != nil {
		return err
	}
	imp.Host = hosts[0]
	if imp.ResourcePool, err = imp.Host.ResourcePool(ctx); err != nil {
		return err
	}
	imp.Folder, err = finder.DefaultFolder(ctx)
	return err
}

func describe(ctx context.Context, vm *object.VirtualMachine, out *machine) error {
	var got mo.VirtualMachine
	if err := vm.Properties(ctx, vm.Reference(), []string{"config"}, &got); err != nil {
		return err
	}
	config := got.Config
	out.Name, out.Guest, out.Version, out.Firmware = config.Name, config.GuestId, config.Version, config.Firmware
	out.CPUs, out.MemoryMiB = config.Hardware.NumCPU, config.Hardware.MemoryMB
	devices := object.VirtualDeviceList(config.Hardware.Device)
	for _, device := range devices {
		out.Devices = append(out.Devices, devices.TypeName(device))
		if disk, ok := device.(*types.VirtualDisk); ok {
			out.DiskBytes = append(out.DiskBytes, disk.CapacityInBytes)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}
