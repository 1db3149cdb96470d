// Command flux-apply applies manifests as Flux's kustomize-controller does, once, with Flux's own library: tests loop
// it to see what a rollback goes through on a cluster that Flux reconciles. The whole controller would add a source
// controller, four CRDs and an archive server, and would write to the API server with this very call.
//
// Manifests come on standard input; what was done with each object is printed, one a line.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Manager is the field manager of Flux's kustomize-controller.
const Manager = "kustomize-controller"

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rules := clientcmd.NewDefaultClientConfigLoadingRules() // KUBECONFIG
	overrides := &clientcmd.ConfigOverrides{CurrentContext: os.Getenv("SLIPWAY_CONTEXT")}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return err
	}
	api, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	objects, err := utils.ReadObjects(os.Stdin)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		return errors.New("there is no Kubernetes object on standard input")
	}
	if err := normalize.UnstructuredList(objects); err != nil {
		return err
	}
	// No poller: it is asked only for cluster-scoped definitions, which are applied in a stage of their own.
	owner := ssa.Owner{Field: Manager, Group: "kustomize.toolkit.fluxcd.io"}
	changes, err := ssa.NewResourceManager(api, nil, owner).ApplyAllStaged(ctx, objects, options())
	if changes != nil {
		for _, change := range changes.Entries {
			fmt.Println(change.String())
		}
	}
	return err
}

// options are those of kustomize-controller for a Kustomization that asks for nothing special: every field that kubectl
// wrote, in whatever way, becomes Flux's own, and goes with the next apply unless the manifest has it.
func options() ssa.ApplyOptions {
	chosen := ssa.DefaultApplyOptions()
	chosen.Cleanup.Annotations = []string{corev1.LastAppliedConfigAnnotation}
	chosen.Cleanup.Exclusions = map[string]string{"kustomize.toolkit.fluxcd.io/ssa": "Merge"}
	chosen.Cleanup.FieldManagers = []ssa.FieldManager{
		{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
		{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
		{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
		{Name: Manager, OperationType: metav1.ManagedFieldsOperationUpdate},
	}
	return chosen
}
