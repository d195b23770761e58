package controlplane

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	apiextensionsoptions "k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	generatedopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/apiserver/pkg/util/webhook"
	basecompatibility "k8s.io/component-base/compatibility"
)

// storagePrefix is where everything lies in etcd.
const storagePrefix = "/registry"

// watchDrain bounds how long stopping waits for open watches, which end as soon as they are told.
const watchDrain = 2 * time.Second

// cipherSuites are what TLS 1.2 may use; TLS 1.3 has its own.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// newAPIServer builds the API server on the listener and the etcd endpoint. The stock options cannot: they insist on a
// core API to take admission, flow control and delegated authorisation from. So the configuration is put together here.
func newAPIServer(cfg Config, ln net.Listener, endpoint string) (*apiserver.CustomResourceDefinitions, error) {
	rc := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	rc.EffectiveVersion = namedVersion{compatibility.DefaultBuildEffectiveVersion()}
	rc.MergedResourceConfig = apiserver.DefaultAPIResourceConfigSource()
	rc.ExternalAddress = ln.Addr().String()
	rc.EnableProfiling = false
	rc.ShutdownWatchTerminationGracePeriod = watchDrain
	setOpenAPI(rc)
	if err := setServing(cfg, rc, ln); err != nil {
		return nil, err
	}

	etcd := options.NewEtcdOptions(storagebackend.NewDefaultConfig(storagePrefix,
		apiserver.Codecs.LegacyCodec(v1beta1.SchemeGroupVersion, apiextensionsv1.SchemeGroupVersion)))
	etcd.StorageConfig.Transport.ServerList = []string{endpoint}
	etcd.EnableGarbageCollection = false // foreground deletion would wait for a collector that does not exist
	// CRDs are few and read from informers: a watch cache of their own would gain nothing, and turns the informers away for
	// a second when they are faster than it.
	uncached := *etcd
	uncached.EnableWatchCache = false
	if err := uncached.ApplyTo(&rc.Config); err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}

	crds := &apiserver.Config{GenericConfig: rc, ExtraConfig: apiserver.ExtraConfig{
		CRDRESTOptionsGetter: apiextensionsoptions.NewCRDRESTOptionsGetter(*etcd, rc.ResourceTransformers, rc.StorageObjectCountTracker),
		MasterCount:          1,
		AuthResolverWrapper:  webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, rc.LoopbackClientConfig, noop.NewTracerProvider()),
	}}
	s, err := crds.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, err
	}
	installRootDiscovery(s)
	return s, nil
}

// setServing sets TLS, the client CA and who may do what.
func setServing(cfg Config, rc *genericapiserver.RecommendedConfig, ln net.Listener) error {
	certPEM, keyPEM, err := servingPEM(cfg.ServingCert)
	if err != nil {
		return err
	}
	serving := options.NewSecureServingOptions()
	serving.Listener = ln
	serving.MinTLSVersion = "VersionTLS12"
	if serving.ServerCert.GeneratedCert, err = dynamiccertificates.NewStaticCertKeyContent("serving", certPEM, keyPEM); err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}
	if err := serving.WithLoopback().ApplyToConfig(&rc.Config); err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	rc.SecureServing.CipherSuites = cipherSuites

	clientCA, err := dynamiccertificates.NewStaticCAContent("client-ca", cfg.ClientCA)
	if err != nil {
		return fmt.Errorf("client CA: %w", err)
	}
	if err := rc.Authentication.ApplyClientCert(clientCA, rc.SecureServing); err != nil {
		return fmt.Errorf("client CA: %w", err)
	}
	rc.Authentication.Authenticator = x509.NewDynamic(clientCA.VerifyOptions, x509.CommonNameUserConversion)
	rc.Authorization.Authorizer = authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup)
	return nil
}

func setOpenAPI(rc *genericapiserver.RecommendedConfig) {
	definitions := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(generatedopenapi.GetOpenAPIDefinitions)
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme)
	rc.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	rc.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	rc.OpenAPIConfig.Info.Title = "Sedna"
	rc.OpenAPIV3Config.Info.Title = "Sedna"
}

// namedVersion answers /version with a version that clients can parse: the libraries have theirs stamped in by the build
// of Kubernetes, which is not ours.
type namedVersion struct {
	basecompatibility.EffectiveVersion
}

func (v namedVersion) Info() *version.Info {
	binary := v.BinaryVersion()
	info := v.EffectiveVersion.Info()
	info.GitVersion = fmt.Sprintf("v%d.%d.%d+sedna", binary.Major(), binary.Minor(), binary.Patch())
	info.GitCommit, info.GitTreeState, info.BuildDate = "", "", ""
	return info
}
