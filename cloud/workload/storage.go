package workload

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/edgetwin/sedna/models/wire"
)

// Where data lies in a worker's containers, and by which names.
const (
	dataPrefix     = "/home/data" // the host's directories
	envDataPrefix  = "DATA_PATH_PREFIX"
	downloads      = "/downloads" // what the init container fetches
	storageName    = "sedna-storage-initializer"
	initName       = "storage-initializer"
	indexMark      = "@" // before the directory of an index
	envIndexMark   = "INDIRECT_URL_MARK"
	envEndpoint    = "S3_ENDPOINT_URL"
	envAccessKey   = "ACCESS_KEY_ID"
	envSecretKey   = "SECRET_ACCESS_KEY"
	urlSeparator   = ";"
	maxVolumeName  = 63
	volumeFallback = "sedna-data"
)

// Mount brings data into a worker, whose variable Env says where it is.
type Mount struct {
	Env  string
	URLs []URL
}

// URL is data that a worker reads or writes: a path on its node, or a URL.
type URL struct {
	URL string
	// Download has the init container fetch what is not on the node; else the
	// worker gets the URL as it is.
	Download bool
	// Dir says that a path is a directory; else its directory is mounted.
	Dir bool
	// Index says that it lists files, which are fetched.
	Index bool
	// HostOnly leaves out what is not on the node.
	HostOnly bool
	// Credential for s3; nil for none.
	Credential *Credential
}

// Credential is a Secret with the data ACCESS_KEY_ID and SECRET_ACCESS_KEY.
// The containers read it themselves.
type Credential struct {
	Secret   string
	Endpoint string // URL of the S3 server
}

// storage is what mounts add to a pod.
type storage struct {
	env     []corev1.EnvVar
	volumes []corev1.Volume
	mounts  []corev1.VolumeMount
	init    *corev1.Container
}

// storage turns mounts into volumes, an init container and variables in env.
func (r Renderer) storage(mounts []Mount, env map[string]string) (*storage, error) {
	s := &storage{}
	var args []string
	var initEnv []corev1.EnvVar
	var initMounts []corev1.VolumeMount
	for _, m := range mounts {
		var places []string
		for _, u := range m.URLs {
			p, err := locate(u)
			if err != nil {
				return nil, err
			}
			if p == nil {
				continue
			}
			places = append(places, p.inside)
			if p.hostDir != "" {
				vm := corev1.VolumeMount{Name: s.hostVolume(p.hostDir), MountPath: p.mountPath}
				if u.Index {
					initMounts = addMount(initMounts, vm)
				} else {
					s.mounts = addMount(s.mounts, vm)
				}
			}
			if p.from != "" {
				to := p.to
				if u.Index {
					to = indexMark + to
				}
				args = append(args, p.from, to)
			}
			if c := u.Credential; c != nil && (p.scheme == "s3" || u.Index) {
				if p.from != "" {
					initEnv = addEnv(initEnv, c.env())
				} else {
					s.env = addEnv(s.env, c.env())
				}
			}
		}
		env[m.Env] = strings.Join(places, urlSeparator)
	}
	if len(s.mounts) > 0 {
		env[envDataPrefix] = dataPrefix
	}
	if len(args) > 0 {
		s.fetch(r.Image, args, append(initEnv, corev1.EnvVar{Name: envIndexMark, Value: indexMark}), initMounts)
	}
	return s, nil
}

// fetch adds the init container and the volume that it fills.
func (s *storage) fetch(image string, args []string, env []corev1.EnvVar, mounts []corev1.VolumeMount) {
	s.volumes = append(s.volumes, corev1.Volume{Name: storageName, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	s.mounts = append(s.mounts, corev1.VolumeMount{Name: storageName, MountPath: downloads, ReadOnly: true})
	if len(mounts) > 0 {
		env = append(env, corev1.EnvVar{Name: envDataPrefix, Value: dataPrefix})
	}
	s.init = &corev1.Container{
		Name:                     initName,
		Image:                    image,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Args:                     append([]string{"storage-init"}, args...),
		Env:                      env,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}},
		VolumeMounts: append([]corev1.VolumeMount{{Name: storageName, MountPath: downloads}}, mounts...),
	}
}

// hostVolume gives the name of the volume of a directory of the host, which it
// adds where it is new.
func (s *storage) hostVolume(dir string) string {
	for _, v := range s.volumes {
		if v.HostPath != nil && v.HostPath.Path == dir {
			return v.Name
		}
	}
	name := volumeName(dir)
	if slices.ContainsFunc(s.volumes, func(v corev1.Volume) bool { return v.Name == name }) {
		name = fit(name, "-"+digest(dir)[:5], maxVolumeName)
	}
	kind := corev1.HostPathDirectory
	s.volumes = append(s.volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: &kind}}})
	return name
}

// volumeName makes a label of a path: /srv/My data becomes srv-my-data.
func volumeName(dir string) string {
	words := strings.FieldsFunc(strings.ToLower(dir), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	name := strings.Join(words, "-")
	if name == "" {
		return volumeFallback
	}
	return fit(name, "", maxVolumeName)
}

// place is where the data of a URL is.
type place struct {
	scheme             string
	inside             string // for the worker
	hostDir, mountPath string // directory of the host and where it is mounted
	from, to           string // for the init container
}

// locate says where the data of a URL is; nil when it is left out.
func locate(u URL) (*place, error) {
	parsed, err := url.Parse(u.URL)
	if err != nil {
		return nil, wire.E(wire.InvalidArgument, "url", fmt.Sprintf("expected a URL or a path, got %.200q", u.URL), "")
	}
	p := &place{scheme: strings.ToLower(parsed.Scheme), inside: u.URL}
	switch {
	case p.scheme == "":
		if err := p.onHost(u); err != nil {
			return nil, err
		}
	case u.HostOnly:
		return nil, nil
	case p.scheme == "blob":
		return nil, wire.E(wire.InvalidArgument, "url", "workers in pods read paths on the node, http(s):// and s3://, not the GlobalManager's blob store", "put the file where the pod can read it")
	case !u.Download:
	case p.scheme == "s3" || p.scheme == "http" || p.scheme == "https":
		p.from = u.URL
		p.inside = path.Join(downloads, path.Clean("/"+parsed.Host+parsed.Path))
		p.to = path.Dir(p.inside)
		if p.to == "/" {
			return nil, wire.E(wire.InvalidArgument, "url", fmt.Sprintf("expected a server's name or a bucket, and a file, got %.200q", u.URL), "")
		}
	}
	return p, nil
}

// onHost says where the data of a path on the node is. The directory is
// mounted, which is never all of the node's files.
func (p *place) onHost(u URL) error {
	file := path.Clean(u.URL)
	p.hostDir, p.inside = file, path.Join(dataPrefix, file)
	if !u.Dir {
		p.hostDir = path.Dir(file)
	}
	if !path.IsAbs(file) || p.hostDir == "/" {
		return wire.E(wire.InvalidArgument, "url", fmt.Sprintf("expected an absolute path below a directory of the node, or http(s):// or s3://, got %.200q", u.URL), "")
	}
	p.mountPath = path.Join(dataPrefix, p.hostDir)
	if u.Index {
		p.from, p.inside = p.inside, path.Join(downloads, file)
		p.to = path.Dir(p.inside)
	}
	return nil
}

// env are the variables of a credential.
func (c *Credential) env() []corev1.EnvVar {
	from := func(key string) corev1.EnvVar {
		return corev1.EnvVar{Name: key, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: c.Secret}, Key: key}}}
	}
	return []corev1.EnvVar{{Name: envEndpoint, Value: c.Endpoint}, from(envAccessKey), from(envSecretKey)}
}

// addEnv adds variables whose names are new.
func addEnv(have, more []corev1.EnvVar) []corev1.EnvVar {
	for _, e := range more {
		if !slices.ContainsFunc(have, func(o corev1.EnvVar) bool { return o.Name == e.Name }) {
			have = append(have, e)
		}
	}
	return have
}

// addMount adds a mount whose path is new.
func addMount(have []corev1.VolumeMount, m corev1.VolumeMount) []corev1.VolumeMount {
	if slices.ContainsFunc(have, func(o corev1.VolumeMount) bool { return o.MountPath == m.MountPath }) {
		return have
	}
	return append(have, m)
}
