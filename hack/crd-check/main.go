// Command crd-check validates CustomResourceDefinitions, and objects of them, as the API server of the Kubernetes
// release in go.mod does on create: structural schema, defaults, and CEL rules with their cost budget.
//
//	crd-check CRD.yaml [OBJECT.yaml...]
package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	apivalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: crd-check CRD.yaml [OBJECT.yaml...]")
		os.Exit(2)
	}
	definition, err := readDefinition(os.Args[1])
	if err == nil {
		err = checkObjects(definition, os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%s: accepted\n", os.Args[1])
}

// readDefinition decodes, converts and defaults a CRD, and validates it as on create.
func readDefinition(path string) (*apiextensions.CustomResourceDefinition, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	decoded, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	definition, isDefinition := decoded.(*apiextensions.CustomResourceDefinition)
	if !isDefinition {
		return nil, fmt.Errorf("%s: holds a %T, not a CustomResourceDefinition", path, decoded)
	}
	// The API server records the storage version before it validates.
	definition.Status.StoredVersions = []string{definition.Spec.Versions[0].Name}
	if problems := validation.ValidateCustomResourceDefinition(context.Background(), definition); len(problems) > 0 {
		return nil, fmt.Errorf("%s: %w", path, problems.ToAggregate())
	}
	return definition, nil
}

// checkObjects applies defaults, schema and CEL rules to each object, as on create.
func checkObjects(definition *apiextensions.CustomResourceDefinition, paths []string) error {
	properties := definition.Spec.Validation
	if properties == nil {
		properties = definition.Spec.Versions[0].Schema
	}
	structural, err := schema.NewStructural(properties.OpenAPIV3Schema)
	if err != nil {
		return err
	}
	validator, _, err := apivalidation.NewSchemaValidator(properties.OpenAPIV3Schema)
	if err != nil {
		return err
	}
	rules := cel.NewValidator(structural, true, celconfig.PerCallLimit)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		object := map[string]any{}
		if err := yaml.Unmarshal(text, &object); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defaulting.Default(object, structural)
		problems := apivalidation.ValidateCustomResource(nil, object, validator)
		if len(problems) == 0 {
			problems, _ = rules.Validate(context.Background(), nil, structural, object, nil, celconfig.RuntimeCELCostBudget)
		}
		if len(problems) > 0 {
			return fmt.Errorf("%s: %w", path, problems.ToAggregate())
		}
	}
	return nil
}
