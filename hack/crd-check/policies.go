package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
)

// checkPolicies compiles every expression of ValidatingAdmissionPolicies, one a line as JSON, as the API server does
// on create, and writes one line for each that it refuses.
func checkPolicies(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		policy := admissionv1.ValidatingAdmissionPolicy{}
		strict := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&policy); err != nil {
			return err
		}
		base := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion(), true)
		compiler, err := plugincel.NewCompositedCompiler(base)
		if err != nil {
			return err
		}
		say := func(where string, result plugincel.CompilationResult) {
			if result.Error != nil {
				fmt.Fprintf(out, "%s: %s: %s\n", policy.Name, where, result.Error.Detail)
			}
		}
		asked := plugincel.OptionalVariableDeclarations{HasAuthorizer: true, StrictCost: true}
		// Match conditions know no variables: compiled before those are stored.
		for i := range policy.Spec.MatchConditions {
			condition := (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i])
			say(condition.Name, compiler.CompileCELExpression(condition, asked, environment.NewExpressions))
		}
		for _, variable := range policy.Spec.Variables {
			named := &validating.Variable{Name: variable.Name, Expression: variable.Expression}
			say(variable.Name, compiler.CompileAndStoreVariable(named, asked, environment.NewExpressions))
		}
		for _, validation := range policy.Spec.Validations {
			condition := &validating.ValidationCondition{Expression: validation.Expression}
			say(validation.Expression, compiler.CompileCELExpression(condition, asked, environment.NewExpressions))
			if validation.MessageExpression != "" {
				message := &validating.MessageExpressionCondition{MessageExpression: validation.MessageExpression}
				plain := plugincel.OptionalVariableDeclarations{StrictCost: true}
				say(validation.MessageExpression, compiler.CompileCELExpression(message, plain, environment.NewExpressions))
			}
		}
	}
	return lines.Err()
}
