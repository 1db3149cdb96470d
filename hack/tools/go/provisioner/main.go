// Command provisioner gives the local cluster its default StorageClass: every claim becomes a folder on the node.
// It runs as a plain process beside the control plane, so that no image is needed before storage works.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const provisionerName = "slipway.dev/local-folder"

// folders provisions claims as folders below one root.
type folders struct {
	root string
	node string
}

// Provision makes the folder of a claim and describes it as a local volume of this node.
func (f folders) Provision(_ context.Context, options controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if claim.Spec.Selector != nil {
		return nil, controller.ProvisioningFinished, errors.New("a claim with a selector cannot be provisioned: remove spec.selector")
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode == corev1.ReadOnlyMany {
			return nil, controller.ProvisioningFinished, errors.New("the access mode ReadOnlyMany is not offered: use ReadWriteOnce or ReadWriteMany")
		}
	}
	if mode := claim.Spec.VolumeMode; mode != nil && *mode != corev1.PersistentVolumeFilesystem {
		return nil, controller.ProvisioningFinished, errors.New("block volumes are not offered: use volumeMode Filesystem")
	}
	path := filepath.Join(f.root, options.PVName)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningNoChange, err
	}
	// The umask took write permission from the folder; pods run under many users, as on any shared disk.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningNoChange, err
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			// A local volume, not a host path: its owner follows the pod's fsGroup.
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{f.node}},
				}}},
			}},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete removes the folder of a released volume; a path outside the root is refused, whatever the volume says.
func (f folders) Delete(_ context.Context, volume *corev1.PersistentVolume) error {
	if volume.Spec.Local == nil {
		return fmt.Errorf("volume %s is not a local volume", volume.Name)
	}
	path := filepath.Clean(volume.Spec.Local.Path)
	if filepath.Dir(path) != f.root || strings.HasPrefix(filepath.Base(path), ".") {
		return fmt.Errorf("volume %s names %s, which is not a folder of %s: nothing was deleted", volume.Name, path, f.root)
	}
	return os.RemoveAll(path)
}

func run() error {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig of the cluster")
	root := flag.String("root", "", "folder that holds the volumes")
	node := flag.String("node", "", "name of the node that the folder is on")
	flag.Parse()
	if *kubeconfig == "" || *root == "" || *node == "" {
		return errors.New("--kubeconfig, --root and --node are all needed")
	}
	absolute, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx = klog.NewContext(ctx, klog.Background())
	// One node, one provisioner: an election would only delay the start.
	controller.NewProvisionController(ctx, client, provisionerName, folders{root: absolute, node: *node},
		controller.LeaderElection(false)).Run(ctx)
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "provisioner:", err)
		os.Exit(1)
	}
}
