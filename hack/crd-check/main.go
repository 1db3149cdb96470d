// Command crd-check validates a CustomResourceDefinition, and objects of it, as the API server of the Kubernetes
// release in go.mod does on create: structural schema, defaults, and CEL rules with their cost budget.
//
//	crd-check CRD.yaml < objects
//	crd-check --policies < policies
//
// Standard input holds one object a line, as JSON; standard output gets one line for each: empty, or why it is refused.
// With --policies the lines are ValidatingAdmissionPolicies, and each refused expression gets a line.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	apivalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/json"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: crd-check CRD.yaml < objects, or crd-check --policies < policies")
		os.Exit(2)
	}
	if os.Args[1] == "--policies" {
		if err := checkPolicies(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	definition, err := readDefinition(os.Args[1])
	if err == nil {
		err = checkObjects(definition, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
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
func checkObjects(definition *apiextensions.CustomResourceDefinition, in io.Reader, out io.Writer) error {
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
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		object := map[string]any{}
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			return err
		}
		defaulting.Default(object, structural)
		unknown := pruning.PruneWithOptions(object, structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
		problems := apivalidation.ValidateCustomResource(nil, object, validator)
		problems = append(problems, listtype.ValidateListSetsAndMaps(nil, structural, object)...)
		if len(problems) == 0 {
			problems, _ = rules.Validate(context.Background(), nil, structural, object, nil, celconfig.RuntimeCELCostBudget)
		}
		said := strings.Join(unknown, ", ")
		if len(problems) > 0 {
			said = problems.ToAggregate().Error()
		}
		fmt.Fprintln(out, strings.ReplaceAll(said, "\n", " "))
	}
	return lines.Err()
}
